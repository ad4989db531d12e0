"""The launcher, as its owner sees it: one process of this program that has imported vLLM, and forks engines.

Importing vLLM takes most of an engine's start. The launcher imports it once (launcher_child.py); every engine is a
fork of it, shares that memory, and has its own environment, log and session. The launcher does nothing else: if it
is gone, running engines go on, and the next start makes another one.
"""

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Libraries read variables while they are imported, some of them inside their shared objects, so engines are forks of
# one launcher only if their environments are equal. These are read later, or by nobody in an engine.
MAY_DIFFER = frozenset({"VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_RPC_BASE_PATH", "PYTEST_CURRENT_TEST"})

_launchers: list["Launcher"] = []
_lock = threading.Lock()


@dataclass(frozen=True)
class Order:
    """What is to be run, as `python -m MODULE ARGUMENTS`."""

    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: str  # private to the process; it is removed when the owner is gone
    directory: str  # the current one


class LauncherDiedError(RuntimeError):
    """The launcher ended before it had forked the engine."""


class Launcher:
    """A launcher process. It ends with the process that made it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.owner_pid = os.getpid()
        self._environment = dict(environment)
        self._control, theirs = socket.socketpair()
        self._folder = Path(tempfile.mkdtemp(prefix="ascend-launcher-"))
        # -P: no module is taken from whatever folder the user happens to be in.
        child = [sys.executable, "-P", "-m", "ascend_adapters.engine.launcher_child"]
        with theirs, self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*child, str(self.owner_pid), str(theirs.fileno()), str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # numpy's threads would be lost in a fork, and nothing here needs them.
                env={**environment, "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal is the owner's to handle
            )
        atexit.register(self.stop)

    @property
    def _log_path(self) -> Path:
        return self._folder / "launcher.log"

    @property
    def log(self) -> str:
        """What importing vLLM has printed."""
        try:
            return self._log_path.read_text(errors="replace")
        except OSError:
            return ""

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def differences(self, environment: Mapping[str, str]) -> list[str]:
        """Names of the variables for which an engine with `environment` cannot be a fork of this launcher."""
        here, there = self._environment, environment
        names = (here.keys() | there.keys()) - MAY_DIFFER
        return sorted(name for name in names if here.get(name) != there.get(name))

    def launch(self, order: Order, log: int) -> "LaunchedProcess":
        """Have a process forked, as soon as vLLM is imported. It prints to the file descriptor `log`.

        Returns at once. Raises LauncherDiedError if there is nobody to fork it.
        """
        ours, theirs = socket.socketpair()
        with theirs, open(os.memfd_create("order"), "w+b") as file:  # not a command line, which everybody may read
            file.write(json.dumps(vars(order)).encode())
            file.flush()
            try:
                socket.send_fds(self._control, [b"1"], [file.fileno(), log, theirs.fileno()])
            except OSError as error:
                ours.close()
                raise LauncherDiedError(str(error)) from error
        return LaunchedProcess(ours, self)

    def stop(self) -> None:
        """End it; engines that it has forked go on. Does nothing in a forked child."""
        if os.getpid() != self.owner_pid:
            return
        atexit.unregister(self.stop)
        self.process.kill()
        self.process.wait()
        self._control.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class LaunchedProcess:
    """A process that the launcher has forked: not a child of this one.

    The launcher writes its process id and, at its end, its exit status to a socket, whose other end only that process
    holds besides. What arrives is looked at and left there, so that a forked child of this process sees it too.
    """

    def __init__(self, ends: socket.socket, launcher: Launcher) -> None:
        self.launcher = launcher
        self._ends = ends
        self._last_told: list[bytes] = []

    @property
    def pid(self) -> int | None:
        """The process id, which is the id of its process group too; None until it is forked."""
        told = self._told()
        return int(told[0]) if told else None

    @property
    def returncode(self) -> int | None:
        """As subprocess.Popen has it; None while it runs, and where the launcher died before it could tell."""
        told = self._told()
        return int(told[1]) if len(told) > 1 else None

    def has_ended(self) -> bool:
        """Whether the process is gone, or will not come to be."""
        return self.wait(0)

    def wait(self, timeout: float) -> bool:
        """Whether it ended within `timeout` seconds."""
        if self._ends.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._ends, select.POLLRDHUP)
        return bool(poll.poll(timeout * 1000))

    def terminate(self, timeout: float) -> None:
        """End it and all its processes: politely, and after `timeout` seconds at once."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if self.pid is None or self.returncode is not None:
                break  # once the launcher has told the exit status, the whole group is gone
            with suppress(ProcessLookupError):
                os.killpg(self.pid, sign)
            self.wait(timeout)
        # Not forked yet: the launcher will see that nobody wants it, and so will the process if it is forked by now.
        if self._ends.fileno() >= 0:
            self._last_told = self._told()
            self._ends.shutdown(socket.SHUT_RDWR)
            self._ends.close()

    def _told(self) -> list[bytes]:
        if self._ends.fileno() < 0:
            return self._last_told
        try:
            return self._ends.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT).split()
        except BlockingIOError:
            return []


def launcher_for(environment: Mapping[str, str]) -> tuple[Launcher, str]:
    """A launcher for engines with `environment`, and why it is not the one that runs, if there is one."""
    with _lock:
        _launchers[:] = [launcher for launcher in _launchers if launcher.is_alive()]
        differing = [launcher.differences(environment) for launcher in _launchers]
        if [] in differing:
            return _launchers[differing.index([])], ""
        _launchers.append(Launcher(environment))
        # Names only: a value may be a secret.
        return _launchers[-1], f"another {', '.join(sorted(differing, key=len)[0])}" if differing else ""


def _forget_launchers() -> None:
    """A forked child is another owner: its engines come from a launcher of its own."""
    global _lock
    _lock = threading.Lock()
    _launchers.clear()


os.register_at_fork(after_in_child=_forget_launchers)
