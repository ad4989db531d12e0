"""The engines and servers of a test run: each is started when a test first asks for it, and stopped at the end."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from ascend_adapters.config import EngineSettings

START_TIMEOUT = 180.0  # seconds


class Engines:
    """By model and settings: whoever asks for the same gets the same."""

    def __init__(self) -> None:
        self._backends: dict[str, EmbeddedBackend] = {}
        self._kept: set[str] = set()

    def __call__(self, model: str | Path, *, keep: bool = False, **settings: Any) -> EmbeddedBackend:
        """A backend whose engine is ready. It is not the caller's to close.

        keep  to the end of the run; without it, to the end of the module: engines of 2 GB each fill the memory
        """
        key = json.dumps([str(model), settings], sort_keys=True, default=str)
        if keep:
            self._kept.add(key)
        if key not in self._backends:
            backend = EmbeddedBackend(str(model), **settings)
            run_sync(backend.info())
            self._backends[key] = backend
        return self._backends[key]

    def close(self, *, all_of_them: bool = False) -> None:
        """Stop those that are not kept, or all."""
        for key in [key for key in self._backends if all_of_them or key not in self._kept]:
            run_sync(self._backends.pop(key).close())


@dataclass(frozen=True)
class Server:
    """`ascend-adapters serve`, as a user starts it."""

    url: str
    api_key: str
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """As a user does."""
        self.process.terminate()
        self.process.wait(30)


class Servers:
    """By model and settings, as Engines."""

    def __init__(self, new_folder: Callable[[str], Path]) -> None:
        self._new_folder = new_folder
        self._servers: dict[str, Server] = {}

    def __call__(self, model: str | Path, **settings: Any) -> Server:
        """A server that answers."""
        key = json.dumps([str(model), settings], sort_keys=True, default=str)
        if key not in self._servers:
            log = self._new_folder("server") / "log"
            self._servers[key] = serve(str(model), log, *EngineSettings.from_dict(settings).arguments())
        return self._servers[key]

    def close(self) -> None:
        """Stop them all."""
        for server in self._servers.values():
            server.stop()


def serve(model: str, log: Path, *options: str) -> Server:
    """A model behind `ascend-adapters serve`, which prints to `log`. It is the caller's to stop."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api_key = secrets.token_hex(8)
    command = [sys.executable, "-m", "ascend_adapters.cli", "serve", model, "--port", str(port), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "ASCEND_API_KEY": api_key}
        )
    server = Server(f"http://127.0.0.1:{port}", api_key, process)
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{server.url}/health", trust_env=False).is_success:
                return server
        except httpx.TransportError:
            time.sleep(0.1)
    server.stop()
    pytest.fail(f"the server did not start:\n{log.read_text()[-3000:]}")
