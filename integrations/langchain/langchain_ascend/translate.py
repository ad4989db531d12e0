"""LangChain's messages, tools and schemas to the contract's bodies."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from ascend_adapters.contract import Body
from ascend_adapters.errors import RequestError
from ascend_adapters.tool_calls import openai_tool_choice

Tool = Mapping[str, Any] | type | Callable[..., Any] | BaseTool

# Parts of an AIMessage's content that are sent as fields of the message, or not at all.
THOUGHTS = ("reasoning", "thinking")
NOT_CONTENT = (*THOUGHTS, "tool_call", "invalid_tool_call", "tool_call_chunk")


def to_messages(messages: Sequence[BaseMessage]) -> list[Body]:
    """The messages of a request body.

    Raises RequestError for content that no OpenAI-compatible server takes.
    """
    return [body for i, message in enumerate(messages) for body in _bodies_of(message, i)]


def _bodies_of(message: BaseMessage, index: int) -> list[Body]:
    """Several, where a message holds the results of tools as parts of its content."""
    parts, videos = _split_content(message)
    try:
        bodies = convert_to_openai_messages(
            [message.model_copy(update={"content": parts})], pass_through_unknown_blocks=False
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"message {index} ({message.type}) has content that cannot be sent: {error}. Use text, and parts of type "
            "text, image, audio, video or file with a url or base64."
        ) from error
    if videos and bodies:
        bodies[0]["content"] = _with_videos(bodies[0]["content"], videos)
    if (reasoning := _reasoning_of(message)) and bodies:
        bodies[0]["reasoning"] = reasoning
    return bodies


def _split_content(message: BaseMessage) -> tuple[str | list[str | dict[str, Any]], dict[int, Body]]:
    """The content that LangChain's own translation takes, and the videos, which it does not, by their places."""
    if isinstance(message.content, str):
        return message.content, {}
    parts: list[str | dict[str, Any]] = []
    videos: dict[int, Body] = {}
    for part in message.content:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(message, AIMessage) and kind in NOT_CONTENT:
            continue
        if kind in ("video", "video_url") and isinstance(part, dict):
            videos[len(parts) + len(videos)] = _video_part(part)
        else:
            parts.append(part)
    return parts, videos


def _video_part(part: Mapping[str, Any]) -> Body:
    if part["type"] == "video_url":
        return dict(part)
    url = part.get("url")
    if url is None and part.get("base64"):
        url = f"data:{part.get('mime_type') or 'video/mp4'};base64,{part['base64']}"
    if url is None:
        raise RequestError(f"a video has neither url nor base64: {sorted(part)}. Give one of them.")
    return {"type": "video_url", "video_url": {"url": url}}


def _with_videos(content: str | list[Body], videos: dict[int, Body]) -> list[Body]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) and content else list(content or [])
    for place, video in videos.items():
        parts.insert(place, video)
    return parts


def _reasoning_of(message: BaseMessage) -> str:
    """What the model thought before its answer, wherever LangChain or another provider's model has put it."""
    if not isinstance(message, AIMessage):
        return ""
    parts = message.content if isinstance(message.content, list) else []
    thoughts = [part.get(part["type"]) for part in parts if isinstance(part, dict) and part.get("type") in THOUGHTS]
    in_content = "".join(thought for thought in thoughts if isinstance(thought, str))
    return in_content or message.additional_kwargs.get("reasoning_content") or ""


def to_tools(tools: Sequence[Tool], *, strict: bool | None = None) -> list[Body]:
    """The tools of a request body."""
    return [convert_to_openai_tool(dict(tool) if isinstance(tool, Mapping) else tool, strict=strict) for tool in tools]


def to_tool_choice(choice: str | bool | Mapping[str, Any] | None, tools: Sequence[Body]) -> str | Body | None:
    """LangChain's word for which tool is to be called, where True means any.

    Raises RequestError for the name of a tool that is not bound.
    """
    if choice is None or choice is False:
        return None
    return openai_tool_choice("any" if choice is True else choice, tools)
