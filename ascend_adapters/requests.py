"""Checks of request bodies that need no engine, so that every backend refuses alike and names the remedy."""

from ascend_adapters.contract import Body
from ascend_adapters.errors import RequestError
from ascend_adapters.vllm_names import closest, request_fields


def check_chat(body: Body) -> None:
    """Raises RequestError if `body` cannot be a chat completion request."""
    _check_fields("chat", body)
    if not body.get("messages"):
        raise RequestError(
            "messages is empty: give at least one message, such as {'role': 'user', 'content': 'Hello'}."
        )
    _check_sampling(body)


def check_complete(body: Body) -> None:
    """Raises RequestError if `body` cannot be a completion request."""
    _check_fields("complete", body)
    if body.get("prompt") in (None, "", []) and body.get("prompt_embeds") is None:
        raise RequestError("prompt is empty: give a text or a list of token ids.")
    _check_sampling(body)


def _check_fields(call: str, body: Body) -> None:
    known = request_fields(call)
    for name in body:
        if name not in known:
            raise RequestError(f"unknown keyword {name!r} in a {call} request{closest(name, known)}")


def _check_sampling(body: Body) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        limit = body.get(name)
        if isinstance(limit, int) and limit < 1:
            raise RequestError(f"{name}={limit} generates nothing: use at least 1, or leave it out for no limit.")
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and temperature < 0:
        raise RequestError(
            f"temperature={temperature} is negative: use 0 for the most likely token, or a value up to 2."
        )
