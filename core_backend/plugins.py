"""vLLM takes one platform from outside: which one we are, and when we stand aside for another."""

import os
from importlib import metadata

SUPPORTED_VLLM = "0.23."
GROUP = "vllm.platform_plugins"
OURS = "ascend_adapters"
VLLM_ASCEND = "ascend"  # its name for itself


def others() -> dict[str, str]:
    """Name and module of every other platform plugin that is installed."""
    return {
        entry_point.name: entry_point.value.split(":")[0]
        for entry_point in metadata.entry_points(group=GROUP)
        if entry_point.name != OURS
    }


def why_aside() -> str | None:
    """Why this platform cannot or should not be the one, with the remedy; None if it is."""
    found = metadata.version("vllm")
    if not found.startswith(SUPPORTED_VLLM):
        return f"it is written for vLLM {SUPPORTED_VLLM}x and found {found}. Install vllm==0.23.0."
    if VLLM_ASCEND in others() and OURS not in os.environ.get("VLLM_PLUGINS", "").split(","):
        return (
            f"{others()[VLLM_ASCEND]} is installed too, and vLLM takes one platform only. "
            f"Set VLLM_PLUGINS={OURS} to choose this one."
        )
    return None
