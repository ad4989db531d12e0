"""Checks of request bodies that need no engine, so that every backend refuses alike and names the remedy."""

from collections.abc import Mapping
from typing import Any

from ascend_adapters.contract import Body
from ascend_adapters.errors import RequestError
from ascend_adapters.vllm_names import closest, request_fields

# Of the catalogue, by what a user may have wanted.
EXAMPLES = {
    **dict.fromkeys(("chat", "complete"), "smollm2-135m-instruct"),
    **dict.fromkeys(("embed", "score", "rerank"), "all-minilm-l6-v2"),
}


def merged(own: Mapping[str, Any], call: Mapping[str, Any]) -> Body:
    """The fields of a request besides its prompt: those of an adapter's object, and over them those of the call.

    lora  in either, names an adapter that the engine has loaded: OpenAI's API has `model` for it
    """
    settings = {**own, **call}
    lora = settings.pop("lora", None)
    return settings if lora is None else {**settings, "model": lora}


def check_chat(body: Body) -> None:
    """Raises RequestError if `body` cannot be a chat completion request."""
    check_fields("chat", body)
    if not body.get("messages"):
        raise RequestError(
            "messages is empty: give at least one message, such as {'role': 'user', 'content': 'Hello'}."
        )
    _check_sampling(body)


def check_complete(body: Body) -> None:
    """Raises RequestError if `body` cannot be a completion request."""
    check_fields("complete", body)
    if body.get("prompt") in (None, "", []) and body.get("prompt_embeds") is None:
        raise RequestError("prompt is empty: give a text or a list of token ids.")
    _check_sampling(body)


def check_fields(call: str, body: Body) -> None:
    """Raises RequestError for a field that a `call` request does not have."""
    known = request_fields(call)
    for name in body:
        if name not in known:
            raise RequestError(f"unknown keyword {name!r} in a {call} request{closest(name, known)}")


def not_for(call: str, model: str, tasks: tuple[str, ...]) -> RequestError:
    """The error of a `call` that the model is not for."""
    example = EXAMPLES.get(call, "")
    return RequestError(
        f"model {model!r} does not answer {call} requests: it is for {', '.join(tasks)}. Use one of these, or a model "
        f"that is for {call}{example and f', such as {example!r}'}."
    )


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
