"""Calls of tools: which parser reads them out of a model's text, and what happens to one that max_tokens cut."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from ascend_adapters.contract import Answer, Body
from ascend_adapters.errors import RequestError

# What a chat template holds -> vLLM's name of the parser for such calls; the first that is found counts.
# Source: docs/features/tool_calling.md of vLLM 0.23, and the templates of the models named there.
PARSERS = {
    "tool▁calls▁begin": "deepseek_v3",
    "<|tool_calls_section_begin|>": "kimi_k2",
    "<minimax:tool_call>": "minimax_m2",
    "<function=": "qwen3_coder",
    "<arg_key>": "glm45",
    "[TOOL_CALLS]": "mistral",
    "<|python_tag|>": "llama3_json",
    "functools[": "phi4_mini_json",
    "<|tool_call|>": "granite",
    "<tool_call>": "hermes",
}
# Calls that are forced are held to JSON by a grammar, whatever the parser: any will do for a model without tools.
OTHER_PARSER = "hermes"


def tool_call_settings(model: str) -> dict[str, Any]:
    """Settings of an engine of `model`, a folder or a hub id, with which its tools can be called."""
    templates = _chat_templates(Path(model)) if Path(model).is_dir() else "{# on the hub #}"
    if not templates:
        return {}  # not a chat model
    parser = next((name for sign, name in PARSERS.items() if sign in templates), OTHER_PARSER)
    return {"enable_auto_tool_choice": True, "tool_call_parser": parser}


def _chat_templates(folder: Path) -> str:
    texts = [file.read_text() for file in [*folder.glob("chat_template*"), *folder.glob("chat_templates/*")]]
    config = folder / "tokenizer_config.json"
    templates = json.loads(config.read_text()).get("chat_template") if config.is_file() else None
    return "\n".join([*texts, json.dumps(templates, ensure_ascii=False)] if templates else texts)


def check_calls(body: Body, answer: Answer) -> Answer:
    """`answer` to `body`. Raises RequestError if it holds a call of a tool that was cut."""
    for choice in answer.get("choices", ()):
        message = choice["message"]
        calls = message.get("tool_calls") or []
        for call in calls:
            _check_call(call["function"]["name"], call["function"]["arguments"], body)
        if choice["finish_reason"] == "length" and _is_forced(body) and not calls and not message.get("content"):
            raise _cut("its call of a tool", body)
    return answer


async def check_streamed_calls(body: Body, chunks: AsyncGenerator[Answer, None]) -> AsyncGenerator[Answer, None]:
    """`chunks` as they come; raises RequestError, as check_calls does, once a choice has ended."""
    calls: dict[tuple[int, int], dict[str, str]] = {}  # by index of the choice, and of the call
    async with aclosing(chunks):
        async for chunk in chunks:
            for choice in chunk.get("choices", ()):
                delta = choice.get("delta") or {}
                for piece in delta.get("tool_calls") or []:
                    call = calls.setdefault((choice["index"], piece["index"]), {"name": "", "arguments": ""})
                    for part, text in (piece.get("function") or {}).items():
                        call[part] = call.get(part, "") + (text or "")
                if (reason := choice.get("finish_reason")) is not None:
                    mine = [call for (index, _), call in calls.items() if index == choice["index"]]
                    for call in mine:
                        _check_call(call["name"], call["arguments"], body)
                    if reason == "length" and _is_forced(body) and not mine:
                        raise _cut("its call of a tool", body)
            yield chunk


def _check_call(name: str, arguments: str, body: Body) -> None:
    if _ends_early(arguments):
        raise _cut(f"its call of {name} with {arguments[:80]!r}", body)


def _ends_early(arguments: str) -> bool:
    """Whether `arguments` is the beginning of some JSON. What is no JSON at all is the model's fault, and its caller's
    to see.
    """
    try:
        json.loads(arguments)
    except json.JSONDecodeError as error:
        return error.pos >= len(arguments.rstrip()) or error.msg.startswith("Unterminated string")
    return False


def _is_forced(body: Body) -> bool:
    return body.get("tool_choice") not in (None, "auto", "none")


def _cut(what: str, body: Body) -> RequestError:
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    room = f"max_tokens={limit}" if limit else "the end of the context"
    return RequestError(
        f"the answer was cut at {room}, before the model had finished {what}. Raise max_tokens, or bound the tool's "
        "arguments by its schema (maxLength, maxItems, enum)."
    )
