"""A process of the engine ends with the one that started it, however that ended: it would keep its device's memory."""

import multiprocessing
import os
import threading
from multiprocessing.connection import wait

ENGINE_PROCESSES = ("EngineCore", "VllmWorker")  # vLLM's names for them (0.23)


def end_with_parent() -> None:
    """Watch the parent from a thread. Does nothing in a process that vLLM did not start, such as a user's own."""
    parent = multiprocessing.parent_process()
    if parent is None or not multiprocessing.current_process().name.startswith(ENGINE_PROCESSES):
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
