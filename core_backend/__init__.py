"""vLLM platform plugin for Huawei Ascend NPUs, with a CPU operator set of the same vocabulary."""

import logging
import os
from importlib import metadata

SUPPORTED_VLLM = "0.23."
PLUGIN_GROUP = "vllm.platform_plugins"
OUR_PLUGIN = "ascend_adapters"
OTHER_PLUGIN = "ascend"  # vllm-ascend's name for itself
# A name under "vllm": that is the logger vLLM gives a handler to.
logger = logging.getLogger("vllm." + __name__)


def register() -> str | None:
    """Entry point `vllm.platform_plugins`: the platform's class path, or None where it cannot be used.

    vLLM calls this twice and swallows every exception (v0.23 platforms/__init__.py), so it is cheap
    and says here why the platform stands aside.
    """
    if (reason := _why_aside()) is not None:
        logger.warning("Ascend platform not used: %s", reason)
        return None
    from core_backend.device import current_device

    try:
        device = current_device()
    except (RuntimeError, ValueError):
        # Told again, to the user, by the CPU platform's check of the configuration.
        return "core_backend.platform.cpu.CpuPlatform"
    return f"core_backend.platform.{device.type}.{device.type.capitalize()}Platform"


def _why_aside() -> str | None:
    found = metadata.version("vllm")
    if not found.startswith(SUPPORTED_VLLM):
        return f"it is written for vLLM {SUPPORTED_VLLM}x and found {found}. Install vllm==0.23.0."
    others = list(metadata.entry_points(group=PLUGIN_GROUP, name=OTHER_PLUGIN))
    if others and OUR_PLUGIN not in os.environ.get("VLLM_PLUGINS", "").split(","):
        return (
            f"{others[0].value.split(':')[0]} is installed too, and vLLM takes one platform only. "
            f"Set VLLM_PLUGINS={OUR_PLUGIN} to choose this one."
        )
    return None
