"""Answers that end too early: a call of a tool, or JSON of a given form, that max_tokens cut is an error."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from ascend_adapters.contract import Answer, Body
from ascend_adapters.errors import RequestError


def check_whole(body: Body, answer: Answer) -> Answer:
    """`answer` to the chat `body`. Raises RequestError if it holds a call or JSON that was cut."""
    for choice in answer.get("choices", ()):
        message = choice["message"]
        calls = [_Call(**_text_parts(call["function"])) for call in message.get("tool_calls") or []]
        _check(body, choice["finish_reason"], message.get("content") or "", calls)
    return answer


async def check_streamed(body: Body, chunks: AsyncGenerator[Answer, None]) -> AsyncGenerator[Answer, None]:
    """`chunks` as they come; raises RequestError, as check_whole does, once a choice has ended."""
    choices: dict[int, _Choice] = {}
    async with aclosing(chunks):
        async for chunk in chunks:
            for piece in chunk.get("choices", ()):
                choice = choices.setdefault(piece["index"], _Choice())
                choice.add(piece.get("delta") or {})
                if (reason := piece.get("finish_reason")) is not None:
                    _check(body, reason, choice.content, list(choice.calls.values()))
            yield chunk


@dataclass
class _Call:
    name: str = ""
    arguments: str = ""


@dataclass
class _Choice:
    """An answer as it grows."""

    content: str = ""
    calls: dict[int, _Call] = field(default_factory=dict)

    def add(self, delta: Body) -> None:
        self.content += delta.get("content") or ""
        for piece in delta.get("tool_calls") or []:
            call, said = self.calls.setdefault(piece["index"], _Call()), _text_parts(piece.get("function") or {})
            call.name += said["name"]
            call.arguments += said["arguments"]


def _text_parts(function: Body) -> dict[str, str]:
    return {name: function.get(name) or "" for name in ("name", "arguments")}


def _check(body: Body, finish_reason: str, content: str, calls: Sequence[_Call]) -> None:
    for call in calls:
        if _ends_early(call.arguments):
            raise _cut(f"its call of {call.name} with {call.arguments[:80]!r}", body)
    if finish_reason != "length":
        return
    if body.get("tool_choice") not in (None, "auto", "none") and not calls and not content:
        raise _cut("its call of a tool", body)
    if _is_json(body) and not calls and _ends_early(content):
        raise _cut(f"its JSON, which begins with {content[:80]!r}", body)


def _ends_early(text: str) -> bool:
    """Whether `text` is the beginning of some JSON. What is no JSON at all is the model's fault, and its caller's
    to see.
    """
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
    return False


def _is_json(body: Body) -> bool:
    return (body.get("response_format") or {}).get("type") in ("json_object", "json_schema")


def _cut(what: str, body: Body) -> RequestError:
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    room = f"max_tokens={limit}" if limit else "the end of the context"
    return RequestError(
        f"the answer was cut at {room}, before the model had finished {what}. Raise max_tokens, or bound what may be "
        "written by its schema (maxLength, maxItems, enum)."
    )
