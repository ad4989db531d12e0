"""Who is measured: our embedded engine, and others, each in a process and a Python environment of its own."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import iterate_sync, run_sync
from bench.workloads import Prompt, Workload

PEERS = Path(__file__).parent / "peers"
ENVIRONMENTS = Path(__file__).parents[1] / ".venv-peers"  # `make bench-peers` makes them


def vllm_cpu_variables() -> dict[str, str]:
    """The environment of vLLM's CPU build: every core (by default it leaves one out), and no platform but its own."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    return {"VLLM_CPU_OMP_THREADS_BIND": cores, "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_PLUGINS": ""}


class MissingError(Exception):
    """A contestant that this machine does not have: says why."""


class Embedded:
    """The product as a user gets it: requests over the unix socket to the engine's processes."""

    name = "ascend-adapters, embedded"

    def __init__(self, model: str, num_threads: int, workloads: tuple[Workload, ...] = (), **settings: Any) -> None:
        """settings  of the engine, besides those that make it comparable."""
        self.workloads = workloads
        shared: dict[str, Any] = {"additional_config": {"num_threads": num_threads}, "max_num_batched_tokens": 2048}
        self._backend = EmbeddedBackend(model, dtype="bfloat16", **shared, **settings)
        run_sync(self._backend.info())

    def generate(self, prompts: list[Prompt], output_len: int) -> float:
        async def all_at_once() -> None:
            await asyncio.gather(*(self._backend.complete(_body(prompt, output_len)) for prompt in prompts))

        started = time.perf_counter()
        run_sync(all_at_once())
        return time.perf_counter() - started

    def stream(self, prompt: Prompt, output_len: int) -> tuple[float, float]:
        started = time.perf_counter()
        stamps = [time.perf_counter() for _ in iterate_sync(self._backend.complete_stream(_body(prompt, output_len)))]
        # The last piece holds the usage; the one before it, the last token.
        return stamps[0] - started, stamps[-2] - started

    def embed(self, texts: list[str]) -> float:
        started = time.perf_counter()
        run_sync(self._backend.embed({"input": texts}))
        return time.perf_counter() - started

    def close(self) -> None:
        """Stop the engine."""
        run_sync(self._backend.close())


def _body(prompt: Prompt, output_len: int) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": output_len, "ignore_eos": True, "temperature": 0}


class Remote:
    """A script of bench/peers, asked over a pipe."""

    def __init__(
        self,
        name: str,
        script: str,
        arguments: list[str],
        workloads: tuple[Workload, ...],
        environment: str | None = None,
        variables: dict[str, str] | None = None,
    ) -> None:
        """Start it, and wait until it has its model.

        environment  the folder of its Python under .venv-peers; None: this Python
        variables    of its process's environment, besides this one's
        Raises MissingError if there is no such Python, or if it does not start.
        """
        self.name = name
        self.workloads = workloads
        python = Path(sys.executable) if environment is None else ENVIRONMENTS / environment / "bin" / "python"
        if not python.exists():
            raise MissingError(f"it is not installed ({ENVIRONMENTS.name}/{environment}: make bench-peers)")
        self._log = tempfile.NamedTemporaryFile("w+", suffix=f"-{script}.log")  # noqa: SIM115 (open as long as this)
        self._process = subprocess.Popen(
            [python, PEERS / script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **(variables or {})},
        )
        try:
            self.versions: dict[str, str] = self._reply()
        except RuntimeError as error:
            raise MissingError(str(error)) from None

    def generate(self, prompts: list[Prompt], output_len: int) -> float:
        return float(self._ask("generate", prompts, output_len))

    def stream(self, prompt: Prompt, output_len: int) -> tuple[float, float]:
        first, last = self._ask("stream", prompt, output_len)
        return first, last

    def embed(self, texts: list[str]) -> float:
        return float(self._ask("embed", texts))

    def ask(self, method: str, *arguments: Any) -> Any:
        """What another method of the script returns. Raises RuntimeError if its process ends."""
        return self._ask(method, *arguments)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, method: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        print(json.dumps([method, arguments]), file=self._process.stdin, flush=True)
        return self._reply()

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            lines = [line.strip() for line in self._log.readlines() if line.strip()]
            raise RuntimeError(f"{self.name} ended with status {self._process.returncode}: {' | '.join(lines[-3:])}")
        return json.loads(line)
