"""vLLM platform plugin for Huawei Ascend NPUs, with a CPU operator set of the same vocabulary."""

import logging
from importlib import metadata

SUPPORTED_VLLM = "0.23."
# A name under "vllm": that is the logger vLLM gives a handler to.
logger = logging.getLogger("vllm." + __name__)


def register() -> str | None:
    """Entry point `vllm.platform_plugins`: the platform's class path, or None where it cannot be used.

    vLLM calls this twice and swallows every exception (v0.23 platforms/__init__.py), so it is cheap
    and says here why the platform stands aside.
    """
    found = metadata.version("vllm")
    if not found.startswith(SUPPORTED_VLLM):
        logger.error(
            "Ascend platform not used: it is written for vLLM %sx and found %s. Install vllm==0.23.0.",
            SUPPORTED_VLLM,
            found,
        )
        return None
    return "core_backend.platform.AscendPlatform"
