"""An engine of this process: started on first use, started again when a run has ended."""

import asyncio
import logging
import os
import re
from typing import Any

from ascend_adapters.config import EngineSettings
from ascend_adapters.engine.launcher import LauncherDiedError, launcher_for
from ascend_adapters.engine.run import POLL_INTERVAL, EngineRun, failure_reason, run_environment
from ascend_adapters.errors import EngineStartError
from ascend_adapters.models import locate, prepare
from ascend_adapters.progress import Progress
from ascend_adapters.tool_calls import tool_call_settings

logger = logging.getLogger(__name__)

START_TIMEOUT = 600.0  # seconds; large models take minutes to load

# What a line of the engine's log says about where the start is.
STEPS = {
    "not forked from the launcher": "importing vLLM",
    "Resolved architecture": "starting the engine core",
    "Starting to load model": "loading weights",
    "Model loading took": "preparing the KV cache",
    "Starting vLLM server": "opening the socket",
}


class Engine:
    """One engine for all who ask for the same model and settings. Its coroutines run on the I/O loop."""

    def __init__(self, model: str, settings: EngineSettings, *, quiet: bool = False) -> None:
        """Nothing is started. Raises ModelError if `model` is neither a known name nor a model's folder."""
        self.model = model
        self.settings = settings
        self.device: str | None = None
        self.model_defaults: dict[str, Any] = {}  # settings that its files ask for; known once it starts
        self._located = locate(model)
        self._quiet = quiet
        self._runs: dict[str, EngineRun] = {}  # by socket; the last one is the current one
        self._starting: asyncio.Task[EngineRun] | None = None
        self._starting_in = 0  # the process that does

    @property
    def pid(self) -> int | None:
        """The process id, which is the id of its process group too; None if it is not running."""
        run = self._current()
        return run.process.pid if run is not None else None

    def _current(self) -> EngineRun | None:
        """The run that is alive, if there is one."""
        runs = list(self._runs.values())
        return runs[-1] if runs and runs[-1].is_alive() else None

    async def ensure_ready(self) -> EngineRun:
        """A run that answers; started if there is none. Callers share one start.

        Raises EngineStartError with the reason from the engine's own log.
        """
        if self._starting is not None and self._starting_in != os.getpid():
            self._starting = None  # a forked child has its parent's memory, but not its I/O loop
        if self._starting is None:
            if (run := self._current()) is not None:
                return run
            self._starting, self._starting_in = asyncio.create_task(self._start()), os.getpid()
            self._starting.add_done_callback(self._start_ended)
        # A caller that gives up does not take the start away from the others.
        return await asyncio.shield(self._starting)

    async def why_it_ended(self, socket: str) -> str | None:
        """How the run at `socket` ended; None if it is well. A later run is left alone."""
        return await self._runs[socket].why_it_ended()

    async def stop(self) -> None:
        """End the engine, also while it starts. A later call starts it again."""
        if self._starting is not None:
            self._starting.cancel()
        if (run := self._current()) is not None:
            await asyncio.to_thread(run.stop)

    def _start_ended(self, task: "asyncio.Task[EngineRun]") -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # seen: whoever waits gets it, and nobody need wait

    async def _start(self) -> EngineRun:
        try:
            return await self._start_once()
        except LauncherDiedError:  # killed, perhaps: another one is made
            try:
                return await self._start_once()
            except LauncherDiedError as error:
                raise EngineStartError(f"the engine for {self.model!r} did not start: {error}") from error

    async def _start_once(self) -> EngineRun:
        environment = run_environment(self._located.is_local, self.settings)
        # First, so that vLLM is imported while the model is made ready.
        launcher, why_another = await asyncio.to_thread(launcher_for, environment)
        folder = await asyncio.to_thread(prepare, self._located, Progress(self.model, quiet=self._quiet))
        progress = Progress("engine", quiet=self._quiet)
        self.model_defaults = await asyncio.to_thread(tool_call_settings, folder)
        arguments = ["--served-model-name", self.model, *self.settings.arguments(self.model_defaults)]
        run = EngineRun(launcher, environment, folder, arguments)
        self._runs[run.socket] = run
        importing = f"importing vLLM for {why_another}" if why_another else "importing vLLM"
        try:
            await self._wait_until_ready(run, importing, progress)
        except BaseException:
            await asyncio.to_thread(run.stop)
            raise
        self.device = _device_in(run.log)
        seconds = progress.done(f"ready on device: {self.device}")
        logger.info("engine of %r ready after %.1f s", self.model, seconds, extra={"start_seconds": seconds})
        return run

    async def _wait_until_ready(self, run: EngineRun, importing: str, progress: Progress) -> None:
        """Raises EngineStartError, or LauncherDiedError."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + START_TIMEOUT
        while not (run.is_alive() and await run.answers()):
            if run.lost_its_launcher():
                log = run.process.launcher.log
                raise LauncherDiedError(f"the process that imports vLLM ended: {failure_reason(log)}")
            if not run.is_alive():
                raise EngineStartError(f"the engine for {self.model!r} did not start: {run.failure()}")
            if clock() > deadline:
                raise EngineStartError(
                    f"the engine for {self.model!r} was not ready after {START_TIMEOUT:.0f} s: {run.failure()}"
                )
            progress.step(importing if run.process.pid is None else _current_step(run.log))
            await asyncio.sleep(POLL_INTERVAL)


def _current_step(log: str) -> str:
    seen = [step for sign, step in STEPS.items() if sign in log]
    return seen[-1] if seen else "starting the server"


def _device_in(log: str) -> str | None:
    """From the worker's line `device: cpu (...), operator set: cpu, 2 threads`."""
    match = re.search(r"device: (.+), operator set: (\w+)", log)
    return f"{match[1]}, operator set {match[2]}" if match else None
