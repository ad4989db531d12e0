"""vLLM platform plugin for Huawei Ascend NPUs, with a CPU operator set of the same vocabulary."""

import logging
import os

from core_backend.plugins import why_aside

# A name under "vllm": that is the logger vLLM gives a handler to.
logger = logging.getLogger("vllm." + __name__)


def register() -> str | None:
    """Entry point `vllm.platform_plugins`: the platform's class path, or None where it cannot be used.

    vLLM calls this twice and swallows every exception (v0.23 platforms/__init__.py), so it is cheap
    and says here why the platform stands aside.
    """
    if (reason := why_aside()) is not None:
        logger.warning("Ascend platform not used: %s", reason)
        return None
    from core_backend.device import current_device

    try:
        device = current_device()
    except Exception as error:  # vLLM would swallow it
        logger.error("Ascend platform: %s", error)
        # Raised again, before anything starts, by the CPU platform's check of the configuration.
        return "core_backend.platform.cpu.CpuPlatform"
    if device.type == "cpu":
        # `vllm serve` would spawn its engine core, unless told before it reads its command line. A forked one has the
        # imports of the API server already: 7 s less to wait, and half a GiB less. vLLM as a library forks anyway.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "fork")
    return f"core_backend.platform.{device.type}.{device.type.capitalize()}Platform"
