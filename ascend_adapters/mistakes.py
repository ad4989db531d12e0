"""What the server answers to a request that it cannot make sense of."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Application = Callable[[Scope, Any, Callable[[Scope], Awaitable[None]]], Awaitable[None]]


class AnswerMistakes:
    """ASGI middleware: the exceptions that vLLM means for the caller become an answer 400, and nothing more.

    Without it vLLM 0.23 answers too, but the exception goes on to uvicorn, which closes the connection, at times
    before the answer has been read (starlette, ServerErrorMiddleware).
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Callable[[Scope], Awaitable[None]]) -> None:
        has_started = False

        async def watched(message: Scope) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except (ValueError, TypeError, OverflowError) as error:  # those to which vLLM answers 400
            if has_started or scope["type"] != "http":
                raise
            body = {"error": {"message": str(error), "type": "BadRequestError", "code": 400}}
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 400, "headers": headers})
            await send({"type": "http.response.body", "body": json.dumps(body).encode()})
