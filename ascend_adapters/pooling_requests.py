"""Checks of embed, score, rerank and classify bodies that need no engine, as requests.py has for chat and complete."""

from typing import Any

from ascend_adapters.contract import Body
from ascend_adapters.errors import RequestError
from ascend_adapters.requests import check_fields

JSON_ENCODINGS = ("float", "base64")  # vLLM's others are bytes, and no answer of this contract
# What a request with a prompt of the model's own can say besides.
WITH_INPUT_TYPE = (
    *("model", "input", "input_type", "dimensions", "encoding_format", "truncate_prompt_tokens", "truncation_side"),
    *("priority", "user"),
)


def check_embed(body: Body) -> None:
    """Raises RequestError if `body` cannot be an embeddings request."""
    check_fields("embed", body)
    _check_input("embed", body)
    _check_at_least(body, "dimensions", 1, "leave it out for the model's own size")
    _check_truncation(body)
    encoding = body.get("encoding_format")
    if encoding is not None and encoding not in JSON_ENCODINGS:
        raise RequestError(f"encoding_format={encoding!r} is not for JSON: use {' or '.join(JSON_ENCODINGS)}.")
    if body.get("input_type") is not None:
        _check_input_type(body)


def check_classify(body: Body) -> None:
    """Raises RequestError if `body` cannot be a classification request."""
    check_fields("classify", body)
    _check_input("classify", body)
    _check_truncation(body)


def check_score(body: Body) -> None:
    """Raises RequestError if `body` cannot be a score request."""
    check_fields("score", body)
    first, second = (_num_texts(body, name) for name in ("text_1", "text_2"))
    if first not in (1, second):
        raise RequestError(
            f"text_1 has {first} texts and text_2 {second}: give one text_1 for all of text_2, or as many of both."
        )
    _check_truncation(body)


def check_rerank(body: Body) -> None:
    """Raises RequestError if `body` cannot be a rerank request."""
    check_fields("rerank", body)
    if isinstance(body.get("query"), list):
        raise RequestError("query is a list: give one text, and make a request for each query.")
    _num_texts(body, "query")
    _num_texts(body, "documents")
    _check_at_least(body, "top_n", 0, "leave it out for all documents")
    _check_truncation(body)


def _check_input(call: str, body: Body) -> None:
    has_input, has_messages = body.get("input") is not None, bool(body.get("messages"))
    if has_input and has_messages:
        raise RequestError(f"a {call} request has input and messages: give one of them.")
    if has_messages:
        return
    given = body.get("input")
    if given is None or given == []:
        raise RequestError("input is empty: give a text or a list of texts, such as ['Hello'].")
    if not _is_text_or_tokens(given) and not (isinstance(given, list) and _is_uniform(given)):
        raise RequestError(
            f"input is {_described(given)}: give a text, a list of texts, a list of token ids or a list of those."
        )


def _is_text_or_tokens(given: Any) -> bool:
    return isinstance(given, str) or (isinstance(given, list) and bool(given) and all(map(_is_token, given)))


def _is_uniform(given: list[Any]) -> bool:
    """Texts only, or token ids only."""
    return all(isinstance(item, str) for item in given) or all(
        isinstance(item, list) and _is_text_or_tokens(item) for item in given
    )


def _is_token(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)


def _num_texts(body: Body, name: str) -> int:
    given = body.get(name)
    if given is None or given == []:
        raise RequestError(f"{name} is empty: give a text{'' if name == 'query' else ' or a list of texts'}.")
    texts = given if isinstance(given, list) else [given]
    for text in texts:
        if not isinstance(text, str | dict):  # a dict holds parts of other kinds: {"content": [...]}
            raise RequestError(
                f"{name} has {_described(text)} in it: it takes texts. Leave empty ones out, or give ''."
            )
    return len(texts)


def _check_truncation(body: Body) -> None:
    limit = body.get("truncate_prompt_tokens")
    if limit is not None and (not _is_token(limit) or limit == 0 or limit < -1):
        raise RequestError(
            f"truncate_prompt_tokens={limit!r} is no number of tokens to keep: give one, or -1 for all the model takes."
        )


def _check_at_least(body: Body, name: str, smallest: int, otherwise: str) -> None:
    value = body.get(name)
    if value is not None and (not _is_token(value) or value < smallest):
        raise RequestError(f"{name}={value!r} must be a number, at least {smallest}; {otherwise}.")


def _check_input_type(body: Body) -> None:
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given or []
    if not all(isinstance(text, str) for text in texts):
        raise RequestError("input_type puts a prompt before texts: give input as a text or a list of texts.")
    for name, value in body.items():
        if name not in WITH_INPUT_TYPE and value is not None:
            raise RequestError(f"{name} does not go with input_type: leave one of them out.")


def _described(value: Any) -> str:
    if isinstance(value, list):
        kinds = sorted({type(item).__name__ for item in value})
        return f"a list of {' and '.join(kinds)}" if value else "an empty list"
    return f"{value!r} ({type(value).__name__})"
