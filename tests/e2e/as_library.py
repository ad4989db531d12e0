"""vLLM as a library of a script's own process."""

import os


def use_vllm_as_library() -> None:
    """For the main function of a script, before it imports vLLM. Never for a test: all engines would inherit it."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
