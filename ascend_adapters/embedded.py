"""The embedded engine: the contract over a unix socket to a private vLLM of this process."""

import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import httpx

from ascend_adapters.bridge import on_io_loop, run_sync
from ascend_adapters.config import EngineSettings
from ascend_adapters.contract import EngineInfo
from ascend_adapters.engine.engine import Engine
from ascend_adapters.engine.run import EngineRun
from ascend_adapters.errors import AscendError, EngineDiedError, ServerError
from ascend_adapters.server import MAX_CONNECTIONS, HttpBackend

logger = logging.getLogger(__name__)

_engines: dict[tuple[str, EngineSettings], "SharedEngine"] = {}
_lock = threading.Lock()


class SharedEngine(Engine):
    """An engine, and the backends that use it."""

    def __init__(self, model: str, settings: EngineSettings, *, quiet: bool) -> None:
        super().__init__(model, settings, quiet=quiet)
        self.users: WeakSet[EmbeddedBackend] = WeakSet()

    async def _start(self) -> EngineRun:
        with _lock:
            others = [engine for engine in _engines.values() if engine.model == self.model and engine.pid is not None]
        for other in others:
            logger.warning(
                "another engine of %r is started, with weights of its own: the one that runs has other settings (%s). "
                "Give the same settings to share one, or close() that one.",
                self.model,
                self.settings.differences(other.settings),
            )
        return await super()._start()


class EmbeddedBackend(HttpBackend):
    """An engine in a child process, started on first use and shared by all who ask for the same one.

    It runs until close(), or until this process ends: a program that makes a new backend for every call gets
    the same engine each time.
    """

    def __init__(
        self, model: str, *, timeout: float | None = None, quiet: bool = False, **engine_settings: Any
    ) -> None:
        """
        model            a name that `ascend-adapters models list` shows, a Hugging Face folder, or a hub id
        timeout          seconds until an answer, or until the next chunk of a stream; None: no limit
        quiet            show no progress of the start
        engine_settings  by vLLM's names: dtype, max_model_len, kv_cache_memory_bytes, ...

        Raises SettingError or ModelError; the engine's own complaints come with the first call.
        """
        super().__init__(timeout)
        settings = EngineSettings.from_dict(engine_settings)
        settings.arguments()  # raises for values that cannot be given to the engine
        with _lock:
            key = (model, settings)
            if key not in _engines:
                _engines[key] = SharedEngine(model, settings, quiet=quiet)
            self.engine = _engines[key]
            self.engine.users.add(self)

    def __repr__(self) -> str:
        return f"EmbeddedBackend({self.engine.model!r}, {self.engine.settings.as_dict()})"

    @on_io_loop
    async def info(self) -> EngineInfo:
        info = await super().info()
        settings = {**self.engine.model_defaults, **self.engine.settings.as_dict()}
        return replace(
            info,
            device=self.engine.device or info.device,
            tool_call_parser=settings.get("tool_call_parser"),
            reasoning_parser=settings.get("reasoning_parser"),
        )

    @on_io_loop
    async def load_lora(self, name: str, path: str) -> None:
        """Make the LoRA adapter in the folder `path` available as model `name`."""
        await super().load_lora(name, _absolute(path))

    @on_io_loop
    async def close(self) -> None:
        """Stop the engine, unless another backend uses it. A later call starts it again."""
        await super().close()
        self.engine.users.discard(self)
        if not list(self.engine.users):
            await self.engine.stop()

    def openai_http_client(self) -> httpx.Client:
        """An HTTP client for `openai.OpenAI(http_client=..., base_url="http://engine/v1", api_key="none")`.

        Starts the engine, and keeps it as long as the client is there. The client is the caller's to close.
        """
        transport = _UnixTransport(self, run_sync(self._address()))
        return httpx.Client(transport=transport, timeout=httpx.Timeout(self.timeout), trust_env=False)

    @on_io_loop
    async def _address(self) -> str:
        self.engine.users.add(self)
        return (await self.engine.ensure_ready()).socket

    def _make_client(self, address: str) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS)
        transport = httpx.AsyncHTTPTransport(uds=address, limits=limits, verify=False)
        return self._new_client(transport=transport, base_url="http://engine", trust_env=False)

    async def _model(self) -> str:
        return self.engine.model

    async def _explain(self, error: httpx.TransportError | ServerError, address: str) -> AscendError:
        if (reason := await self.engine.why_it_ended(address)) is not None:
            return EngineDiedError(
                f"the engine of {self.engine.model!r} ended while answering: {reason}. "
                "Call again: the next call starts a new one."
            )
        return (
            error if isinstance(error, ServerError) else ServerError(f"the engine dropped the connection: {error!r}.")
        )


def _absolute(path: str) -> str:
    """The engine's current folder need not be this process's."""
    folder = Path(path).expanduser()
    return str(folder.absolute() if folder.exists() else path)


class _UnixTransport(httpx.HTTPTransport):
    """A transport to a backend's engine that holds the backend, so that nobody stops the engine under it."""

    def __init__(self, backend: EmbeddedBackend, socket: str) -> None:
        super().__init__(uds=socket, verify=False)
        self._backend = backend
