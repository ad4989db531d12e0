"""One run of an engine: a private `vllm serve` on a unix socket, from its launch to its end."""

import asyncio
import atexit
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from ascend_adapters.config import EngineSettings, engine_environment
from ascend_adapters.engine.launcher import LaunchedProcess, Launcher, Order
from ascend_adapters.errors import EngineStartError

POLL_INTERVAL = 0.1  # seconds
STOP_TIMEOUT = 5.0
HEALTH_TIMEOUT = 2.0
MAX_SOCKET_PATH = 107  # bytes; Linux allows 108 with the terminating zero (unix(7))
LEN_OF_VLLMS_SOCKET_NAMES = 36  # a UUID


class EngineRun:
    """A launched engine process. It does not come back: the next start is another run."""

    def __init__(
        self, launcher: Launcher, environment: Mapping[str, str], model: str, arguments: Sequence[str]
    ) -> None:
        """Launch the engine; it is not ready yet.

        model      a folder or a hub id
        arguments  of `vllm serve`, without the model and the socket

        Raises EngineStartError if no socket can be made for it, LauncherDiedError if the launcher has ended.
        """
        self.owner_pid = os.getpid()
        self._folder = _private_folder()
        self._ended: str | None = None
        self._diagnosing = asyncio.Lock()
        self._stopping = threading.Lock()
        try:
            self.process = self._launch(launcher, ["serve", model, "--uds", self.socket, *arguments], environment)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)  # nobody else knows of it
            raise
        atexit.register(self.stop)

    @property
    def socket(self) -> str:
        """The path of the unix socket. Only this user can reach it: the folder's mode is 0700."""
        return str(self._folder / "engine.sock")

    @property
    def log(self) -> str:
        """What the engine's processes have printed so far."""
        try:
            return (self._folder / "engine.log").read_text(errors="replace")
        except OSError:
            return ""

    @property
    def whole_log(self) -> str:
        """The same, and what importing vLLM has printed: it may say why our platform stands aside."""
        imported = self.process.launcher.log
        return (
            f"{self.log}\nprinted while vLLM was imported, once for all engines:\n{imported}" if imported else self.log
        )

    def is_alive(self) -> bool:
        """Whether the process runs, or is about to; it may not be ready yet. A forked child can ask, too."""
        return self._ended is None and not self.process.has_ended()

    def lost_its_launcher(self) -> bool:
        """Whether the launcher ended before it had forked the engine."""
        return self.process.has_ended() and self.process.pid is None

    async def answers(self) -> bool:
        """Whether the server is there and has a working engine behind it. One that is too busy to say is well."""
        async with http_client(self.socket, timeout=HEALTH_TIMEOUT) as client:
            try:
                return not (await client.get("/health")).is_server_error
            except httpx.TimeoutException:
                return True
            except httpx.TransportError:
                return False

    async def why_it_ended(self) -> str | None:
        """How this run ended, if it has or is about to; None if it is well. What is left of it is stopped."""
        async with self._diagnosing:  # many requests fail at once, and ask at once
            if self._ended is None and not await self.answers():
                await asyncio.sleep(POLL_INTERVAL)  # a killed process takes a moment to be seen as ended
                # A server whose engine core is gone still runs for a moment, and shuts down by itself.
                how = f"its process ended{self._how()}" if self.process.has_ended() else "its core process ended"
                self._ended = f"{how} (its log: {self.keep_log()})"
                await asyncio.to_thread(self.stop)
            return self._ended

    def failure(self) -> str:
        """Why the start failed, for a person: the cause from the log, how the process ended, and where the log is."""
        code = self.process.returncode
        ending = "" if code is None or code > 0 else f"; its process ended{self._how()}"
        return f"{failure_reason(self.whole_log)}{ending} (its log: {self.keep_log()})"

    def keep_log(self) -> Path:
        """A copy of the log that survives this run."""
        handle, path = tempfile.mkstemp(prefix="ascend-engine-", suffix=".log")
        with os.fdopen(handle, "w") as file:
            file.write(self.whole_log)
        return Path(path)

    def stop(self) -> None:
        """End the engine and all its processes; nothing is left of them. Does nothing in a forked child."""
        if os.getpid() != self.owner_pid:
            return
        with self._stopping:
            self._ended = self._ended or "it was stopped"
            atexit.unregister(self.stop)
            self.process.terminate(STOP_TIMEOUT)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _how(self) -> str:
        code = self.process.returncode
        if code is None:
            return ""  # the launcher had ended before, and nobody else is told
        return f" by {signal.Signals(-code).name}" if code < 0 else f" with exit status {code}"

    def _launch(self, launcher: Launcher, arguments: Sequence[str], environment: Mapping[str, str]) -> LaunchedProcess:
        # vLLM's processes talk over sockets too: not in the folder that all users share.
        environment = {**environment, "VLLM_RPC_BASE_PATH": str(self._folder)}
        with (self._folder / "engine.log").open("wb") as log:
            log.write(f"vllm {' '.join(arguments)}\n".encode())
            log.flush()
            order = Order("ascend_adapters.engine.serve", arguments, environment, str(self._folder), os.getcwd())
            return launcher.launch(order, log.fileno())


def run_environment(is_local: bool, settings: EngineSettings) -> dict[str, str]:
    """The environment of a private engine, which is asked by this user alone.

    is_local  its model is on this machine already
    """
    environment = engine_environment(is_local, enable_lora=bool(settings.as_dict().get("enable_lora")))
    # Progress, the device's name and the reasons of a failure are read from the log.
    if environment.get("VLLM_LOGGING_LEVEL") != "DEBUG":
        environment["VLLM_LOGGING_LEVEL"] = "INFO"
    environment["VLLM_CONFIGURE_LOGGING"] = "1"
    environment.pop("VLLM_API_KEY", None)  # meant for servers; here the folder's mode is the lock
    return environment


def http_client(socket: str, timeout: float | None) -> httpx.AsyncClient:
    """A client of the server behind a unix socket."""
    # verify=False: there is no TLS on a unix socket, and loading certificates takes 30 ms.
    transport = httpx.AsyncHTTPTransport(uds=socket, verify=False)
    return httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=timeout, trust_env=False)


def failure_reason(log: str) -> str:
    """The cause named in an engine's log: its first exception that is not a consequence of another."""
    text = re.sub(r"^\(\w+ pid=\d+\) ?(?:ERROR .*?\] )?", "", log, flags=re.MULTILINE)
    causes = (
        r"^(?:\w+\.)*\w*(?:Error|Exception): (.+)",
        r"^\s+Value error, (.+?)(?: \[type=.*)?$",  # pydantic's, below a line of the first kind
        r"^vllm serve: error: (.+)",
    )
    found = ["".join(groups) for groups in re.findall("|".join(causes), text, re.MULTILINE)]
    consequences = ("Engine core initialization failed", "validation error for")
    roots = [cause for cause in found if not any(consequence in cause for consequence in consequences)]
    # Where our platform stood aside and no other took its place, vLLM fails over an empty device.
    if aside := re.search(r"Ascend platform not used: (.+)", text):
        no_platform = ("Failed to infer device type", "Device string must not be empty")
        roots = [aside[1] if any(sign in cause for sign in no_platform) else cause for cause in roots]
    return roots[0].strip() if roots else "its log gives no reason"


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ascend-engine-"))
    if len(os.fsencode(folder)) + 1 + LEN_OF_VLLMS_SOCKET_NAMES > MAX_SOCKET_PATH:
        folder.rmdir()
        raise EngineStartError(
            f"the temporary folder's path is too long for a unix socket: {folder}. Set TMPDIR to a shorter one."
        )
    return folder
