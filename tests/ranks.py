"""Processes that are the ranks of one group, each running the same module, and what they print."""

import socket
from collections.abc import Mapping
from typing import Any

from tests.script import Script


def run_ranks(
    module: str,
    arguments: list[str],
    num_ranks: int,
    environment: Mapping[str, str | None] | None = None,
    num_meetings: int = 1,
) -> list[dict[str, Any]]:
    """The JSON lines that all ranks print, the first rank's first. Raises RuntimeError if one fails.

    A rank finds RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in its environment, and in PORTS as many
    ports as there are meetings: groups that are made anew meet at another one.
    """
    ports = _free_ports(num_meetings)
    shared = {"WORLD_SIZE": num_ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": ports[0], "PORTS": ",".join(ports)}
    ranks = [
        Script(
            module,
            *arguments,
            environment=environment,
            variables={name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()},
        )
        for rank in range(num_ranks)
    ]
    try:
        return [row for rank in ranks for row in rank.rows()]
    finally:
        for rank in ranks:
            rank.stop()


def _free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    ports = [str(free.getsockname()[1]) for free in sockets]
    for free in sockets:
        free.close()
    return ports
