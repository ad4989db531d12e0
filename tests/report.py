"""What is printed at the end of a run: the slowest tests, what the engines' starts took, and seconds by folder."""

import logging
from collections import defaultdict
from pathlib import Path

import pytest

NUM_SLOWEST = 10
FOLDER_DEPTH = 3  # tests/core_backend/ops


class Report:
    """A plugin of pytest."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)  # by test, its fixtures included
        self._starts = _Starts()
        logger = logging.getLogger("ascend_adapters.engine")
        logger.setLevel(logging.INFO)
        logger.addHandler(self._starts)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._seconds:
            return
        write = terminalreporter.write_line
        terminalreporter.section("where the time went")
        write(f"{self._starts.num} starts of engines by this process took {self._starts.seconds:.0f} s")
        write("the slowest tests, with the fixtures that they were the first to ask for:")
        slowest = sorted(self._seconds.items(), key=lambda item: -item[1])[:NUM_SLOWEST]
        for nodeid, seconds in slowest:
            write(f"{seconds:8.1f} s  {nodeid}")
        by_folder: dict[str, float] = defaultdict(float)
        for nodeid, seconds in self._seconds.items():
            folder = Path(nodeid.partition("::")[0]).parent
            by_folder["/".join(folder.parts[:FOLDER_DEPTH])] += seconds
        write("by folder:")
        for folder, seconds in sorted(by_folder.items(), key=lambda item: -item[1]):
            write(f"{seconds:8.1f} s  {folder}")


class _Starts(logging.Handler):
    """Hears of every engine that got ready."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.num = 0
        self.seconds = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if (seconds := getattr(record, "start_seconds", None)) is not None:
            self.num += 1
            self.seconds += seconds
