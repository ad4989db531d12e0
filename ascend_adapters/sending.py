"""Sending a request again: where it cannot have reached the server, or the server asks for it."""

import asyncio
from typing import Any

import httpx

CLOSED = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)

OVERLOADED = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds; each pause is twice the one before


async def send(
    client: httpx.AsyncClient, method: str, path: str, body: Any = None, *, max_retries: int = 0
) -> httpx.Response:
    """The response, of which only the headers have been read.

    max_retries  how often it is sent again to a server that cannot be reached, or says that it is overloaded
    """
    pause = FIRST_PAUSE
    for _ in range(max_retries):
        try:
            response = await _send_once(client, method, path, body)
            if response.status_code not in OVERLOADED:
                return response
            await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout):
            pass  # nothing was sent
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return await _send_once(client, method, path, body)


async def _send_once(client: httpx.AsyncClient, method: str, path: str, body: Any) -> httpx.Response:
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
