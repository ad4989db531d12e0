"""A process that the launcher has started: it runs one module, and ends when its owner does.

Where the launcher cannot fork, it runs `python -m ascend_adapters.engine.child OWNER_PID REPORT_FD FOLDER MODULE ...`.
"""

import os
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

POLL_INTERVAL = 0.2  # seconds, where the kernel cannot tell that a process has ended


class Process:
    """A process that runs now, told from a later one that has its number. Source: pidfd_open(2), Linux 5.3."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._started = _start_time(pid)
        try:
            self.fd: int | None = os.pidfd_open(pid)  # readable once it has ended
        except OSError:
            self.fd = None

    def is_running(self) -> bool:
        """Whether it is that process still."""
        return self._started is not None and _start_time(self.pid) == self._started


def _start_time(pid: int) -> str | None:
    """In clock ticks since the machine's start; None for a process that has ended. Source: proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


class Owner:
    """The process that an engine belongs to, and the socket on which it waits for the engine's end."""

    def __init__(self, process: Process, report: socket.socket) -> None:
        self._process = process
        self.report = report

    def gives_up(self) -> bool:
        """Whether it has closed its end of the socket, or has ended."""
        poll = select.poll()
        poll.register(self.report, select.POLLRDHUP)
        return bool(poll.poll(0)) or not self._process.is_running()

    def wait_for_end(self) -> None:
        """Return when it has given up."""
        poll = select.poll()
        poll.register(self.report, select.POLLRDHUP)
        if self._process.fd is not None:
            poll.register(self._process.fd, select.POLLIN)
            poll.poll()
            return
        while not poll.poll(POLL_INTERVAL * 1000) and self._process.is_running():
            pass


def run_module(owner: Owner, folder: str, module: str, arguments: Sequence[str]) -> None:
    """As `python -m MODULE ARGUMENTS`, in this process, until that or its owner ends. `folder` goes with the owner."""
    _in_thread(lambda: _end_with(owner, folder))
    # What is forked from this process (vLLM's engine core) must not outlive it, nor be taken for it.
    this = Process(os.getpid())

    def in_fork() -> None:
        owner.report.close()
        _in_thread(lambda: _exit_with(this))

    os.register_at_fork(after_in_child=in_fork)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _in_thread(action: Callable[[], object]) -> None:
    threading.Thread(target=action, name="watch-owner", daemon=True).start()


def _end_with(owner: Owner, folder: str) -> None:
    owner.wait_for_end()
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _exit_with(process: Process) -> None:
    if process.fd is not None:
        poll = select.poll()
        poll.register(process.fd, select.POLLIN)
        poll.poll()
    while process.is_running():
        time.sleep(POLL_INTERVAL)
    os._exit(1)


def main() -> None:
    """In a process that is not forked."""
    report = socket.socket(fileno=int(sys.argv[2]))
    report.set_inheritable(False)
    owner = Owner(Process(int(sys.argv[1])), report)
    if owner.gives_up():
        sys.exit("the owner ended before this process began.")
    run_module(owner, sys.argv[3], sys.argv[4], sys.argv[5:])


if __name__ == "__main__":
    main()
