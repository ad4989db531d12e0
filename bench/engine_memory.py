"""What the processes of an embedded engine hold."""

import threading

import psutil

INTERVAL = 0.1  # seconds between two looks


class PeakMemory:
    """The most that they hold while this is open, in `num_bytes`. Looking costs time: time nothing meanwhile."""

    def __init__(self) -> None:
        self.num_bytes = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(INTERVAL):
            self.num_bytes = max(self.num_bytes, bytes_of_engine())


def bytes_of_engine() -> float:
    """Of the launcher and its engines; what they share counts once."""
    launchers = [
        child for child in psutil.Process().children() if "ascend_adapters.engine.launcher_child" in child.cmdline()
    ]
    processes = [process for launcher in launchers for process in (launcher, *launcher.children(recursive=True))]
    return float(sum(process.memory_full_info().pss for process in processes))
