"""The life of an engine: a private `vllm serve` on a unix socket, started on first use, watched, and stopped."""

import asyncio
import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import httpx

from ascend_adapters.config import EngineSettings, engine_environment
from ascend_adapters.errors import EngineStartError
from ascend_adapters.models import locate, prepare
from ascend_adapters.progress import Progress

START_TIMEOUT = 600.0  # seconds; large models take minutes to load
POLL_INTERVAL = 0.1
STOP_TIMEOUT = 5.0
HEALTH_TIMEOUT = 2.0
MAX_SOCKET_PATH = 100  # bytes; Linux allows 108 with the terminating zero (unix(7))

# What a line of the engine's log says about where the start is.
STEPS = {
    "Resolved architecture": "starting the engine core",
    "Starting to load model": "loading weights",
    "Model loading took": "preparing the KV cache",
    "Starting vLLM server": "opening the socket",
}


class EngineProcess:
    """One engine of this process, for all who ask for the same model and settings. Lives on the I/O loop."""

    def __init__(self, model: str, settings: EngineSettings, *, quiet: bool = False) -> None:
        """Nothing is started. Raises ModelError if `model` is neither a known name nor a model's folder."""
        self.model = model
        self.settings = settings
        self.device: str | None = None
        self._located = locate(model)
        self._quiet = quiet
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owner_pid = os.getpid()
        self._starting: asyncio.Task[None] | None = None
        self._ended = "it was stopped"  # how the last one ended
        self._stopping = threading.Lock()

    @property
    def socket(self) -> str:
        """The path of the engine's unix socket. Only this user can reach it: the folder's mode is 0700."""
        if self._folder is None:
            raise RuntimeError("the engine was not started.")
        return str(self._folder / "engine.sock")

    @property
    def pid(self) -> int | None:
        """The process id, which is the id of its process group too; None if it is not running."""
        return self._process.pid if self._process is not None and self.is_alive() else None

    def is_alive(self) -> bool:
        """Whether the engine's process runs; it may not be ready yet."""
        if self._process is None:
            return False
        if os.getpid() != self._owner_pid:  # a forked child cannot wait for its parent's children
            return Path(f"/proc/{self._process.pid}").exists()
        return self._process.poll() is None

    async def ensure_ready(self) -> None:
        """Start the engine if it does not run, and wait until it answers. Callers share one start.

        Raises EngineStartError with the reason from the engine's own log.
        """
        if self._starting is None and not self.is_alive():
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._start_ended)
        if self._starting is not None:
            await asyncio.shield(self._starting)

    def _start_ended(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # seen: whoever waits gets it, and nobody need wait

    async def _start(self) -> None:
        progress = Progress("engine", quiet=self._quiet)
        folder = await asyncio.to_thread(prepare, self._located, Progress(self.model, quiet=self._quiet))
        self.stop()
        self._folder = _private_folder()
        self._owner_pid = os.getpid()
        atexit.register(self.stop)
        self._process = self._launch(folder)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._wait_until_ready(progress)
        except TimeoutError:
            reason = f"it was not ready after {START_TIMEOUT:.0f} s"
            raise self._start_failed(reason) from None
        progress.done(f"ready on device: {self.device}")

    def _launch(self, model_folder: str) -> "subprocess.Popen[bytes]":
        assert self._folder is not None
        command = [
            *(sys.executable, "-m", "ascend_adapters.engine_child", str(os.getpid()), str(self._folder)),
            *("serve", model_folder, "--uds", self.socket, "--served-model-name", self.model),
            *self.settings.arguments(),
        ]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=engine_environment(model_folder),
                start_new_session=True,  # Ctrl-C in the terminal is the owner's to handle
            )

    async def _wait_until_ready(self, progress: Progress) -> None:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=self.socket), trust_env=False) as client:
            while not await _is_healthy(client):
                if not self.is_alive():
                    raise self._start_failed("")
                log = self._read_log()
                progress.step(_current_step(log))
                await asyncio.sleep(POLL_INTERVAL)
        self.device = _device_in(self._read_log())

    def _start_failed(self, reason: str) -> EngineStartError:
        log = self._read_log()
        kept = _keep_log(log)
        self.stop()
        return EngineStartError(
            f"the engine for {self.model!r} did not start: {reason or failure_reason(log)} (its log: {kept})"
        )

    async def why_it_ended(self) -> str | None:
        """How the engine ended, if it has or is about to; None if it is well. What is left of it is stopped."""
        if self._process is not None and await self._answers():
            return None
        if self._process is not None:
            await asyncio.sleep(POLL_INTERVAL)  # a killed process takes a moment to be seen as ended
        if (process := self._process) is not None:
            code = process.poll()
            # A server whose engine core is gone still runs for a moment, and shuts down by itself.
            self._ended = "its core process ended" if code is None else f"its process ended {_how(code)}"
            await asyncio.to_thread(self.stop)
        return self._ended

    async def _answers(self) -> bool:
        """Whether the server is there and has a working engine behind it. One that is busy is well."""
        transport = httpx.AsyncHTTPTransport(uds=self.socket)
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=HEALTH_TIMEOUT) as client:
            try:
                return not (await client.get("http://engine/health")).is_server_error
            except httpx.TimeoutException:
                return True
            except httpx.TransportError:
                return False

    def stop(self) -> None:
        """End the engine and all its processes; nothing is left of it. Does nothing in a forked child."""
        with self._stopping:
            if self._process is None or os.getpid() != self._owner_pid:
                return
            atexit.unregister(self.stop)
            _end_group(self._process)
            self._process = None
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    @property
    def _log(self) -> Path:
        assert self._folder is not None
        return self._folder / "engine.log"

    def _read_log(self) -> str:
        try:
            return self._log.read_text(errors="replace")
        except OSError:
            return ""


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ascend-engine-"))
    if len(os.fsencode(folder / "engine.sock")) > MAX_SOCKET_PATH:
        folder.rmdir()
        raise EngineStartError(
            f"the temporary folder's path is too long for a unix socket: {folder}. Set TMPDIR to a shorter one."
        )
    return folder


async def _is_healthy(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("http://engine/health")).is_success
    except httpx.TransportError:
        return False


def _current_step(log: str) -> str:
    seen = [step for sign, step in STEPS.items() if sign in log]
    return seen[-1] if seen else "importing vLLM"


def _device_in(log: str) -> str | None:
    """From the worker's line `device: cpu (...), operator set: cpu, 2 threads`."""
    match = re.search(r"device: (.+), operator set: (\w+)", log)
    return f"{match[1]}, operator set {match[2]}" if match else None


def failure_reason(log: str) -> str:
    """The cause named in an engine's log: its first exception that is not a consequence of another."""
    text = re.sub(r"^\(\w+ pid=\d+\) ?(?:ERROR .*?\] )?", "", log, flags=re.MULTILINE)
    found = re.findall(
        r"^(?:\w+\.)*(?:\w*(?:Error|Exception)|OSError): (.+)|^\s+Value error, (.+?)(?: \[type=.*)?$",
        text,
        re.MULTILINE,
    )
    causes = [a or b for a, b in found if "Engine core initialization failed" not in a and "validation error" not in a]
    return causes[0].strip() if causes else "its log gives no reason"


def _keep_log(log: str) -> Path:
    """The log of a failed start, where it survives the engine's folder."""
    handle, path = tempfile.mkstemp(prefix="ascend-engine-", suffix=".log")
    with os.fdopen(handle, "w") as file:
        file.write(log)
    return Path(path)


def _how(returncode: int) -> str:
    if returncode < 0:
        return f"by {signal.Signals(-returncode).name}"
    return f"with exit status {returncode}"


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
