"""The API key of `ascend-adapters serve`, asked for on every path."""

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Callable[[Scope], Awaitable[None]]], Awaitable[None]]

OPEN_PATHS = ("/health",)  # what a load balancer asks


class RequireApiKey:
    """ASGI middleware: answers 401 unless the request carries the key of the environment variable VLLM_API_KEY.

    vLLM's own check leaves out every path but /v1, /v2 and /inference (0.23, AuthenticationMiddleware), and so
    lets anybody generate through /invocations.
    """

    def __init__(self, app: Application) -> None:
        """Raises ValueError if there is no key."""
        if not (key := os.environ.get("VLLM_API_KEY")):
            raise ValueError("VLLM_API_KEY is empty: `ascend-adapters serve` sets it; give --api-key a value.")
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Any, send: Callable[[Scope], Awaitable[None]]) -> None:
        if scope["type"] == "lifespan" or scope.get("path") in OPEN_PATHS or self._is_allowed(scope):
            await self._app(scope, receive, send)
            return
        body = b'{"error": {"message": "the API key is missing or wrong", "type": "Unauthorized", "code": 401}}'
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _is_allowed(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)
