"""Sending a request again if the connection it took from the pool was closed already."""

from typing import Any

import httpx

CLOSED = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


async def send(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> httpx.Response:
    """The response, of which only the headers have been read.

    After some errors (those that vLLM answers as an unexpected exception) a server closes the connection without
    having said so: the next request may be sent into it. On a connection of its own, a request is sent once.
    """
    while True:
        opened: list[str] = []

        async def note(event: str, details: Any, opened: list[str] = opened) -> None:
            if event.startswith("connection.connect_"):
                opened.append(event)

        request = client.build_request(method, path, json=body, extensions={"trace": note})
        try:
            return await client.send(request, stream=True)
        except CLOSED:
            if opened:
                raise
