"""Processes that are the ranks of one group, each running the same module, and what they print."""

import json
import os
import socket
import subprocess
import sys
from typing import Any

TIMEOUT = 400  # seconds


def run_ranks(
    module: str, arguments: list[str], num_ranks: int, environment: dict[str, str] | None = None, num_meetings: int = 1
) -> list[dict[str, Any]]:
    """The JSON lines that all ranks print, the first rank's first. Raises RuntimeError if one fails.

    A rank finds RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in its environment, and in PORTS as many
    ports as there are meetings: groups that are made anew meet at another one.
    """
    ports = _free_ports(num_meetings)
    shared = {"WORLD_SIZE": num_ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": ports[0], "PORTS": ",".join(ports)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                **(environment or {}),
                **{name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    try:
        outputs = [process.communicate(timeout=TIMEOUT) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    for rank, (process, (_, log)) in enumerate(zip(ranks, outputs, strict=True)):
        if process.returncode != 0:
            raise RuntimeError(f"rank {rank} of {num_ranks} failed:\n{log[-4000:]}")
    return [json.loads(line) for out, _ in outputs for line in out.splitlines() if line.startswith("{")]


def _free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    ports = [str(free.getsockname()[1]) for free in sockets]
    for free in sockets:
        free.close()
    return ports
