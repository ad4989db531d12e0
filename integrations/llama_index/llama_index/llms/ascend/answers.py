"""The contract's answers, and the chunks of streamed ones, to LlamaIndex's responses."""

import json
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ContentBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.llms.ascend.messages import tool_call

from ascend_adapters.contract import Answer
from ascend_adapters.errors import RequestError


def to_chat_response(answer: Answer) -> ChatResponse:
    """The answer to a chat."""
    choice = _only_choice(answer)
    said = choice["message"]
    calls = [
        tool_call(call.get("id") or "", call["function"]["name"], call["function"]["arguments"])
        for call in said.get("tool_calls") or []
    ]
    return ChatResponse(
        message=_message(said.get("content") or "", said.get("reasoning") or "", calls, finished=True),
        raw=answer,
        logprobs=_logprobs(choice),
        additional_kwargs={"finish_reason": choice["finish_reason"], **_usage(answer)},
    )


def to_completion_response(answer: Answer) -> CompletionResponse:
    """The continuation of a prompt, or the answer to a chat of one message."""
    choice = _only_choice(answer)
    return CompletionResponse(
        text=choice["text"] if "text" in choice else choice["message"].get("content") or "",
        raw=answer,
        logprobs=_logprobs(choice),
        additional_kwargs={"finish_reason": choice["finish_reason"], **_usage(answer)},
    )


class StreamedChat:
    """The answer to a chat as it grows: LlamaIndex wants all that was said so far with every piece."""

    def __init__(self) -> None:
        self._text = self._reasoning = ""
        self._calls: dict[int, dict[str, Any]] = {}  # by their index, in OpenAI's form
        self._finish_reason: str | None = None

    def add(self, chunk: Answer) -> ChatResponse:
        """The response after `chunk`. The last chunk has no choices, but the usage."""
        choice = _only_choice(chunk) if chunk["choices"] else {}
        delta: dict[str, Any] = choice.get("delta") or {}
        text, reasoning = delta.get("content") or "", delta.get("reasoning") or ""
        self._text += text
        self._reasoning += reasoning
        for piece in delta.get("tool_calls") or []:
            self._add_to_call(piece)
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        finished = self._finish_reason is not None
        return ChatResponse(
            message=_message(self._text, self._reasoning, list(self._calls.values()), finished=finished),
            delta=text,
            raw=chunk,
            logprobs=_logprobs(choice),
            additional_kwargs={
                **({"thinking_delta": reasoning} if reasoning else {}),
                **({"finish_reason": self._finish_reason} if finished else {}),
                **_usage(chunk),
            },
        )

    def _add_to_call(self, piece: dict[str, Any]) -> None:
        call = self._calls.setdefault(piece["index"], tool_call("", "", ""))
        call["id"] = piece.get("id") or call["id"]
        for part, text in (piece.get("function") or {}).items():
            call["function"][part] += text or ""


class StreamedCompletion:
    """A continuation as it grows, or the answer to a chat of one message."""

    def __init__(self) -> None:
        self._text = ""

    def add(self, chunk: Answer) -> CompletionResponse:
        """The response after `chunk`. The last chunk has no choices, but the usage."""
        choice: dict[str, Any] = _only_choice(chunk) if chunk["choices"] else {"text": ""}
        text = (choice["text"] if "text" in choice else choice["delta"].get("content")) or ""
        self._text += text
        finish_reason = choice.get("finish_reason")
        return CompletionResponse(
            text=self._text,
            delta=text,
            raw=chunk,
            logprobs=_logprobs(choice),
            additional_kwargs={**({"finish_reason": finish_reason} if finish_reason else {}), **_usage(chunk)},
        )


def _only_choice(answer: Answer) -> dict[str, Any]:
    choices: list[dict[str, Any]] = answer["choices"]
    if len(choices) > 1 or choices[0].get("index"):
        raise RequestError("n > 1 answers do not fit one response of LlamaIndex: leave n out, and ask several times.")
    return choices[0]


def _message(text: str, reasoning: str, calls: list[dict[str, Any]], *, finished: bool) -> ChatMessage:
    blocks: list[ContentBlock] = []
    if reasoning:
        blocks.append(ThinkingBlock(content=reasoning))
    if text or not calls:
        blocks.append(TextBlock(text=text))
    for call in calls:
        function = call["function"]
        arguments = _as_object(function["arguments"]) if finished else None
        blocks.append(
            ToolCallBlock(
                tool_call_id=call["id"],
                tool_name=function["name"],
                # The text itself while it is incomplete, or where the model broke it.
                tool_kwargs=function["arguments"] if arguments is None else arguments,
            )
        )
    # core's programs and memories still look for calls there. A copy: pieces are added to a streamed call.
    also = {"tool_calls": [{**call, "function": dict(call["function"])} for call in calls]} if calls else {}
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=also)


def _as_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _usage(answer: Answer) -> dict[str, int]:
    usage = answer.get("usage") or {}
    return {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens") if name in usage}


def _logprobs(choice: dict[str, Any]) -> list[list[LogProb]] | None:
    """For each token the likeliest ones, or the token itself if no others were asked for."""
    given = choice.get("logprobs")
    if not given:
        return None
    if "content" in given:  # of chats
        tokens = given["content"] or []
        return [[_logprob(one) for one in token.get("top_logprobs") or [token]] for token in tokens]
    return [
        [LogProb(token=text, logprob=value, bytes=list(text.encode())) for text, value in (top or {}).items()]
        for top in given.get("top_logprobs") or []
    ]


def _logprob(token: dict[str, Any]) -> LogProb:
    return LogProb(token=token["token"], logprob=token["logprob"], bytes=token.get("bytes") or [])
