"""The launcher's own process: imports vLLM, then forks an engine for every order.

Run as `python -m ascend_adapters.engine.launcher_child OWNER_PID CONTROL_FD FOLDER`. Nothing else imports it. It has
one thread and starts no device, so what it forks can have both.
"""

import atexit
import gc
import json
import multiprocessing
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from ascend_adapters.engine.child import Owner, Process, run_module
from ascend_adapters.engine.imports import Imported, import_vllm

POLL_INTERVAL = 200  # milliseconds, where the kernel cannot tell that the owner has ended


class Launcher:
    """Takes orders until its owner ends, and reports how each engine ended."""

    def __init__(self, owner: Process, folder: str, control: socket.socket, imported: Imported) -> None:
        self._owner = owner
        self._folder = folder
        self._control = control
        self._imported = imported
        self._reports: dict[int, socket.socket] = {}  # of running engines, by process id
        self._spawned: list[subprocess.Popen[bytes]] = []  # kept, or Popen would wait for them itself
        self._wakeup, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it need only wake poll()

    def run(self) -> Callable[[], None]:
        """Serve the owner. Returns only in a forked process, with what that process is to do."""
        poll = select.poll()
        for fd in (self._control.fileno(), self._wakeup, self._owner.fd):
            if fd is not None:
                poll.register(fd, select.POLLIN)
        num_orders = 0
        while True:
            ready = {fd for fd, _ in poll.poll(POLL_INTERVAL if self._owner.fd is None else None)}
            if self._wakeup in ready:
                os.read(self._wakeup, 512)
            self._report_ended()
            if self._control.fileno() in ready:
                num_orders += 1
                if (run := self._take_order()) is not None:
                    return run
            elif not self._owner.is_running():
                self._end()  # what it has forked sees it too
            if self._imported.failure is not None and num_orders and not self._reports:
                self._end()  # the machine may be mended by the next time

    def _end(self) -> NoReturn:
        shutil.rmtree(self._folder, ignore_errors=True)
        sys.exit()

    def _take_order(self) -> Callable[[], None] | None:
        _, fds, _, _ = socket.recv_fds(self._control, 1, 3)
        if len(fds) != 3:
            self._end()  # the owner has closed its end
        order_fd, log, report = fds[0], fds[1], socket.socket(fileno=fds[2])
        with open(order_fd) as file:
            file.seek(0)
            order: dict[str, Any] = json.load(file)
        if Owner(self._owner, report).gives_up():
            shutil.rmtree(order["folder"], ignore_errors=True)
        else:
            pid = os.fork() if self._imported.why_not_fork is None else self._spawn(order, log, report)
            if pid == 0:
                return partial(self._leave_launcher, order, log, report)
            self._reports[pid] = report.dup()
            report.send(f"{pid} ".encode())
        os.close(log)
        report.close()
        return None

    def _spawn(self, order: Mapping[str, Any], log: int, report: socket.socket) -> int:
        """Where this process cannot be forked: one that imports vLLM itself."""
        os.write(log, f"this engine is not forked from the launcher: {self._imported.why_not_fork}\n".encode())
        child = [sys.executable, "-P", "-m", "ascend_adapters.engine.child", str(self._owner.pid), str(report.fileno())]
        process = subprocess.Popen(
            [*child, order["folder"], order["module"], *order["arguments"]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=order["environment"],
            cwd=order["directory"],
            pass_fds=[report.fileno()],
            start_new_session=True,
        )
        self._spawned.append(process)
        return process.pid

    def _leave_launcher(self, order: Mapping[str, Any], log: int, report: socket.socket) -> None:
        """In the forked process: leave everything of the launcher's behind, then run what was ordered."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in (self._control, *self._reports.values()):
            other.close()
        os.setsid()
        for standard in (1, 2):
            os.dup2(log, standard)
        os.close(log)
        # Before the environment is another: setproctitle looks for the old one's memory, behind the arguments.
        _name_process([order["module"], f"owner={self._owner.pid}", *order["arguments"]])
        self._imported.take_environment(order["environment"])
        os.chdir(order["directory"])
        # What Python has made for the launcher: the folder by its environment, the secret for itself.
        tempfile.tempdir = None
        multiprocessing.current_process().authkey = os.urandom(32)
        atexit.register(gc.freeze)  # at its end, Python would look through all that was imported for garbage
        run_module(Owner(self._owner, report), order["folder"], order["module"], order["arguments"])

    def _report_ended(self) -> None:
        for pid, report in list(self._reports.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            # What is left of its group goes with it; after waitpid, the group's number may be another's.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            with suppress(OSError):  # nobody waits for it
                report.send(str(os.waitstatus_to_exitcode(status)).encode())
            report.close()
            del self._reports[pid]


def _name_process(arguments: list[str]) -> None:
    """What `ps` shows."""
    with suppress(ImportError):  # vLLM's; not there where vLLM could not be imported
        from setproctitle import setproctitle

        setproctitle(" ".join(arguments))


def main() -> None:
    """Import, then fork."""
    owner_pid, control, folder = int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), sys.argv[3]
    control.set_inheritable(False)
    owner = Process(owner_pid)
    if os.getppid() != owner_pid:
        sys.exit("the launcher's owner ended before the launcher began.")
    imported = import_vllm()
    # A collection writes to every object that it looks at: forks would soon have copied the memory that they share.
    gc.freeze()
    run = Launcher(owner, folder, control, imported).run()
    run()


if __name__ == "__main__":
    main()
