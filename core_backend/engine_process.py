"""What every process of an engine needs before it does anything: the engine core, and the workers of several ranks."""

import multiprocessing
import os
import threading
from multiprocessing.connection import wait

ENGINE_PROCESSES = ("EngineCore", "VllmWorker")  # vLLM's names for them (0.23)

_prepared: set[int] = set()  # process ids: a forked process has its parent's memory


def prepare() -> None:
    """Entry point `vllm.general_plugins`: vLLM calls it in all its processes, and in those that use it as a library.

    Does nothing in a process that is not an engine's own, and nothing the second time. A forked process has its
    parent's mark of having called the plugins: there, the worker calls this.
    """
    if not multiprocessing.current_process().name.startswith(ENGINE_PROCESSES) or os.getpid() in _prepared:
        return
    _prepared.add(os.getpid())
    _end_with_parent()
    from core_backend import upstream_patches
    from core_backend.device import current_device

    upstream_patches.prefix_cache_by_adapter()
    if current_device().type == "npu":
        # The engine core of several ranks runs no worker, but clears the device's cache when it ends.
        upstream_patches.npu_memory_for_accelerator()


def _end_with_parent() -> None:
    """End when the parent does, however it ended: a process that is left over keeps its device's memory."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
