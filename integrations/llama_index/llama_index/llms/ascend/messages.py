"""LlamaIndex's messages to OpenAI's, which the contract takes."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)

from ascend_adapters.errors import RequestError

Part = dict[str, Any]
ROLES = {
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
}
# Said in fields of the message, or of no meaning here: the engine finds shared prefixes by itself.
NO_PARTS = (ThinkingBlock, ToolCallBlock, CachePoint)


def to_openai_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """`messages` in OpenAI's form. Raises RequestError for a block that no model here takes."""
    return [_to_openai_message(message) for message in messages]


def _to_openai_message(message: ChatMessage) -> dict[str, Any]:
    role = ROLES.get(message.role, message.role.value)
    said: dict[str, Any] = {"role": role, "content": _content(message)}
    if role == "assistant":
        if calls := _tool_calls(message):
            said |= {"tool_calls": calls, "content": said["content"] or None}
        if reasoning := "".join(block.content or "" for block in message.blocks if isinstance(block, ThinkingBlock)):
            said["reasoning"] = reasoning
    if role == "tool" and (call_id := message.additional_kwargs.get("tool_call_id")):
        said["tool_call_id"] = call_id
    if name := message.additional_kwargs.get("name"):
        said["name"] = name
    return said


def _content(message: ChatMessage) -> str | list[Part]:
    """A text where all is text, as LlamaIndex itself reads it, else a part for each block."""
    blocks = [block for block in message.blocks if not isinstance(block, NO_PARTS)]
    if all(isinstance(block, TextBlock) for block in blocks):
        return message.content or ""
    return [_part(block) for block in blocks]


def _part(block: Any) -> Part:
    for kind, to_part in PARTS.items():
        if isinstance(block, kind):
            return to_part(block)
    raise RequestError(
        f"a message holds a {type(block).__name__}, which no model here takes: read it into text first (for files: "
        "SimpleDirectoryReader), and give TextBlock, ImageBlock, AudioBlock or VideoBlock."
    )


def _text(block: TextBlock) -> Part:
    return {"type": "text", "text": block.text}


def _image(block: ImageBlock) -> Part:
    url = str(block.url) if block.url else _data_url(block.image_mimetype or "image", block.resolve_image().read())
    return {"type": "image_url", "image_url": {"url": url, **({"detail": block.detail} if block.detail else {})}}


def _audio(block: AudioBlock) -> Part:
    if block.url:
        return {"type": "audio_url", "audio_url": {"url": str(block.url)}}
    audio = {"data": _base64(block.resolve_audio().read()), "format": block.format or "wav"}
    return {"type": "input_audio", "input_audio": audio}


def _video(block: VideoBlock) -> Part:
    if block.fps is not None or block.detail is not None:
        raise RequestError(
            f"VideoBlock(fps={block.fps}, detail={block.detail!r}): the engine chooses the frames of all videos alike. "
            "Leave both out, and give media_io_kwargs={'video': {'num_frames': ...}} where the engine is started."
        )
    url = str(block.url) if block.url else _data_url(block.video_mimetype or "video", block.resolve_video().read())
    return {"type": "video_url", "video_url": {"url": url}}


PARTS: dict[type, Callable[[Any], Part]] = {
    TextBlock: _text,
    ImageBlock: _image,
    AudioBlock: _audio,
    VideoBlock: _video,
}


def _data_url(mimetype: str, content: bytes) -> str:
    # Not the block's own inline_url(): of an open file that puts the bytes into the URL as they are (core 0.14.25).
    return f"data:{mimetype};base64,{_base64(content)}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _tool_calls(message: ChatMessage) -> list[dict[str, Any]]:
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if not blocks:  # as adapters wrote them before there were blocks
        calls = message.additional_kwargs.get("tool_calls") or []
        return [call if isinstance(call, dict) else call.model_dump() for call in calls]
    return [tool_call(block.tool_call_id or "", block.tool_name, block.tool_kwargs) for block in blocks]


def tool_call(call_id: str, name: str, arguments: dict[str, Any] | str) -> dict[str, Any]:
    """A call in OpenAI's form."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}
