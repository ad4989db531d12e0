"""The contract's answers to LangChain's messages, whole and in pieces."""

from typing import Any, TypeVar

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    Generation,
    GenerationChunk,
    LLMResult,
)

from ascend_adapters.contract import Answer, Body
from ascend_adapters.errors import RequestError

G = TypeVar("G", bound=Generation)


def to_chat_result(answer: Answer) -> ChatResult:
    """One generation for each choice of `answer`."""
    generations = []
    for choice in answer["choices"]:
        calls, invalid = _tool_calls(choice["message"].get("tool_calls") or [])
        message = AIMessage(
            content=choice["message"].get("content") or "",
            additional_kwargs=_reasoning(choice["message"]),
            id=answer["id"],
            tool_calls=calls,
            invalid_tool_calls=invalid,
            usage_metadata=to_usage(answer["usage"]),
            response_metadata=_response_metadata(answer, choice),
        )
        generations.append(ChatGeneration(message=message, generation_info={"finish_reason": choice["finish_reason"]}))
    return ChatResult(
        generations=generations, llm_output={"model_name": answer["model"], "token_usage": answer["usage"]}
    )


def to_generation_chunk(chunk: Answer) -> ChatGenerationChunk:
    """One piece of a stream; the last one has no choices, but the usage.

    Raises RequestError for a piece of a second answer: LangChain would run the answers together.
    """
    if not chunk["choices"]:
        usage = chunk.get("usage")
        return ChatGenerationChunk(
            message=AIMessageChunk(content="", id=chunk["id"], usage_metadata=to_usage(usage) if usage else None)
        )
    choice = chunk["choices"][0]
    if choice["index"] > 0:
        raise RequestError("n > 1 answers cannot be streamed as one message: use invoke, or leave n out.")
    finished = choice.get("finish_reason") is not None
    message = AIMessageChunk(
        content=choice["delta"].get("content") or "",
        additional_kwargs=_reasoning(choice["delta"]),
        id=chunk["id"],
        tool_call_chunks=[
            tool_call_chunk(
                name=piece.get("function", {}).get("name"),
                args=piece.get("function", {}).get("arguments"),
                id=piece.get("id"),
                index=piece["index"],
            )
            for piece in choice["delta"].get("tool_calls") or []
        ],
        response_metadata=_response_metadata(chunk, choice) if finished else _logprobs(choice),
    )
    return ChatGenerationChunk(
        message=message, generation_info={"finish_reason": choice["finish_reason"]} if finished else None
    )


def to_llm_result(answers: list[Answer]) -> LLMResult:
    """The continuations of each prompt."""
    generations = [[_generation(choice, Generation) for choice in answer["choices"]] for answer in answers]
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    usage = {name: sum(answer["usage"].get(name, 0) for answer in answers) for name in counts}
    model_name = answers[0]["model"] if answers else None
    return LLMResult(generations=list(generations), llm_output={"model_name": model_name, "token_usage": usage})


def to_text_chunk(chunk: Answer) -> GenerationChunk:
    """One piece of a continuation; the last one has no text, but the usage.

    Raises RequestError for a piece of a second continuation: LangChain would run them together.
    """
    if not chunk["choices"]:
        return GenerationChunk(text="", generation_info={"token_usage": chunk.get("usage")})
    (choice,) = chunk["choices"]
    if choice["index"] > 0:
        raise RequestError("n > 1 continuations cannot be streamed as one text: use invoke, or leave n out.")
    return _generation(choice, GenerationChunk)


def _generation(choice: dict[str, Any], kind: type[G]) -> G:
    names = ("finish_reason", "logprobs")
    said = {name: choice[name] for name in names if choice.get(name) is not None}
    return kind(text=choice["text"], generation_info=said or None)


def _tool_calls(calls: list[Body]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """The calls whose arguments are JSON, and those that the model broke."""
    valid, invalid = [], []
    for call in calls:
        try:
            if (parsed := parse_tool_call(call, return_id=True, strict=True)) is not None:
                valid.append(ToolCall(name=parsed["name"], args=parsed["args"], id=parsed["id"], type="tool_call"))
        except OutputParserException as error:
            invalid.append(make_invalid_tool_call(call, str(error)))
    return valid, invalid


def _reasoning(message: Body) -> dict[str, Any]:
    """Where LangChain looks for it when it makes content blocks; `content` stays the answer alone."""
    return {"reasoning_content": message["reasoning"]} if message.get("reasoning") else {}


def _response_metadata(answer: Answer, choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_provider": "ascend",
        "model_name": answer["model"],
        "finish_reason": choice["finish_reason"],
        **_logprobs(choice),
    }


def _logprobs(choice: dict[str, Any]) -> dict[str, Any]:
    return {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}


def to_usage(usage: dict[str, Any]) -> UsageMetadata:
    """Tokens of the prompt, of the answer, and of the prompt's part that was in the cache."""
    details = usage.get("prompt_tokens_details") or {}
    metadata = UsageMetadata(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage.get("completion_tokens", 0),
        total_tokens=usage["total_tokens"],
    )
    if (cached := details.get("cached_tokens")) is not None:
        metadata["input_token_details"] = InputTokenDetails(cache_read=cached)
    return metadata
