"""LangChain's messages to the contract's bodies, and the contract's answers back."""

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from ascend_adapters.contract import Answer, Body
from ascend_adapters.errors import RequestError


def to_chat_body(messages: list[BaseMessage], settings: dict[str, Any]) -> Body:
    """The request body of `messages`."""
    return {"messages": convert_to_openai_messages(messages), **settings}


def to_chat_result(answer: Answer) -> ChatResult:
    """One generation for each choice of `answer`."""
    generations = []
    for choice in answer["choices"]:
        message = AIMessage(
            content=choice["message"]["content"] or "",
            id=answer["id"],
            usage_metadata=_usage(answer["usage"]),
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
            message=AIMessageChunk(content="", id=chunk["id"], usage_metadata=_usage(usage) if usage else None)
        )
    choice = chunk["choices"][0]
    if choice["index"] > 0:
        raise RequestError("n > 1 answers cannot be streamed as one message: use invoke, or leave n out.")
    finished = choice.get("finish_reason") is not None
    metadata = _response_metadata(chunk, choice) if finished else _logprobs(choice)
    message = AIMessageChunk(content=choice["delta"].get("content") or "", id=chunk["id"], response_metadata=metadata)
    return ChatGenerationChunk(
        message=message, generation_info={"finish_reason": choice["finish_reason"]} if finished else None
    )


def _response_metadata(answer: Answer, choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_provider": "ascend",
        "model_name": answer["model"],
        "finish_reason": choice["finish_reason"],
        **_logprobs(choice),
    }


def _logprobs(choice: dict[str, Any]) -> dict[str, Any]:
    return {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}


def _usage(usage: dict[str, Any]) -> UsageMetadata:
    details = usage.get("prompt_tokens_details") or {}
    metadata = UsageMetadata(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage.get("completion_tokens", 0),
        total_tokens=usage["total_tokens"],
    )
    if (cached := details.get("cached_tokens")) is not None:
        metadata["input_token_details"] = InputTokenDetails(cache_read=cached)
    return metadata
