"""The features, of a chat model class of LlamaIndex. What the framework has no notion of is not among them."""

import asyncio
import base64
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from tests import thinking
from tests.integrations.features.subject import (
    ASK_FOR_A_CALL,
    CONTEXT,
    LORA,
    MAX_TOKENS,
    PNG,
    QUESTION,
    TOOL_TOKENS,
    City,
    Features,
    NotRunError,
    Subject,
    add,
    check_told,
    check_told_of_cut,
    error_of,
    multiply,
)

if TYPE_CHECKING:  # core takes a second to import: not while tests are collected
    from llama_index.core.base.llms.types import ChatMessage, ChatResponse
    from llama_index.core.prompts import PromptTemplate

FEATURES = Features()
feature = FEATURES.named


def message(content: str, **fields: Any) -> "ChatMessage":
    from llama_index.core.base.llms.types import ChatMessage

    return ChatMessage(content=content, **fields)


def asked(text: str) -> "list[ChatMessage]":
    return [message(text)]


@cache
def ask_for_json() -> "PromptTemplate":
    from llama_index.core.prompts import PromptTemplate

    return PromptTemplate("The capital of {country} as JSON.")


def text_of(llm: Any, text: str = QUESTION, **settings: Any) -> str:
    return llm.chat(asked(text), **settings).message.content or ""


@feature("answers messages")
def _answers(subject: Subject) -> None:
    assert text_of(subject.make()), "the answer is empty"


@feature("streams token by token")
def _streams(subject: Subject) -> None:
    pieces = [response.delta for response in subject.make().stream_chat(asked(QUESTION)) if response.delta]
    assert "".join(pieces) == text_of(subject.make()), "the pieces are not the answer"
    assert len(pieces) >= MAX_TOKENS / 2, f"{len(pieces)} pieces for {MAX_TOKENS} tokens"


@feature("asynchronous calls and streams")
def _asynchronous(subject: Subject) -> None:
    async def both() -> list[str]:
        llm = subject.make()
        stream = await llm.astream_chat(asked(QUESTION))
        pieces = [response.delta async for response in stream if response.delta]
        assert len(pieces) >= MAX_TOKENS / 2, f"{len(pieces)} pieces for {MAX_TOKENS} tokens"
        return ["".join(pieces), (await llm.achat(asked(QUESTION))).message.content or ""]

    assert set(asyncio.run(both())) == {text_of(subject.make())}, "other answers than the synchronous"


@feature("one object in one event loop after another")
def _loops(subject: Subject) -> None:
    llm = subject.make()
    first, second = (asyncio.run(llm.achat(asked(QUESTION))).message.content for _ in range(2))
    assert first == second, "another answer"


@feature("usage of an answer and of a stream")
def _usage(subject: Subject) -> None:
    llm = subject.make()
    whole, streamed = llm.chat(asked(QUESTION)), _last(llm.stream_chat(asked(QUESTION)))
    for response in (whole, streamed):
        count = response.additional_kwargs.get("completion_tokens")
        assert count == MAX_TOKENS, f"{count} completion_tokens of {MAX_TOKENS}"


@feature("32 asynchronous calls reach the engine at once")
def _abatch(subject: Subject) -> None:
    async def all_at_once() -> None:
        llm = subject.make(max_tokens=64)
        await asyncio.gather(*(llm.achat(asked(f"Count to {i}.")) for i in range(32)))

    with subject.watched() as watch:
        asyncio.run(all_at_once())
    assert watch.peak > 24, f"at most {watch.peak} at once"


@feature("a stream that is left is aborted in the engine")
def _left_stream(subject: Subject) -> None:
    stream = subject.make(max_tokens=2000, fields={"ignore_eos": True}).stream_chat(asked(QUESTION))
    for _ in range(3):
        next(stream)
    stream.close()
    assert subject.wait_until(lambda running: running == 0, 1), "it runs on after 1 s"


@feature("a cancelled call is aborted in the engine")
def _cancelled(subject: Subject) -> None:
    async def cancel() -> None:
        llm = subject.make(max_tokens=2000, fields={"ignore_eos": True})
        call = asyncio.create_task(llm.achat(asked(QUESTION)))
        assert await asyncio.to_thread(subject.wait_until, lambda running: running > 0, 5), "it never ran"
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(subject.wait_until, lambda running: running == 0, 1), "it runs on after 1 s"

    asyncio.run(cancel())


@feature("a time-out is an error, and frees the engine")
def _timeout(subject: Subject) -> None:
    error = error_of(lambda: text_of(subject.make(max_tokens=2000, timeout=0.5, fields={"ignore_eos": True})))
    check_told(error.lower(), "time")
    assert subject.wait_until(lambda running: running == 0, 1), "it runs on after 1 s"


@feature("stop words")
def _stop(subject: Subject) -> None:
    whole = text_of(subject.make())
    word = max(whole.split(), key=len)
    assert text_of(subject.make(stop=[word])) == whole.split(word)[0], "the model's are not kept"
    assert text_of(subject.make(), stop=[word]) == whole.split(word)[0], "the call's are not kept"


@feature("the same seed gives the same answer")
def _seed(subject: Subject) -> None:
    first, second, other = (text_of(subject.make(temperature=1.0, seed=seed, max_tokens=32)) for seed in (7, 7, 8))
    assert first == second != other, "answers do not go by the seed"


@feature("log-probabilities")
def _logprobs(subject: Subject) -> None:
    tokens = subject.make(logprobs=True, top_logprobs=3).chat(asked(QUESTION)).logprobs or []
    assert [len(token) for token in tokens] == [3] * MAX_TOKENS, "not three for each token"


@feature("the engine's own sampling fields")
def _fields(subject: Subject) -> None:
    greedy = text_of(subject.make())
    assert text_of(subject.make(temperature=1.0, fields={"top_k": 1})) == greedy, "top_k=1 is not kept"


@feature("a tool that is named is called")
def _named_tool(subject: Subject) -> None:
    calls = _calls(subject.make(max_tokens=TOOL_TOKENS), [multiply, add], tool_choice="add")
    assert [(call.tool_name, set(call.tool_kwargs)) for call in calls] == [("add", {"a", "b"})], f"calls: {calls}"


@feature("some tool is called, and once, where that is asked for")
def _any_tool(subject: Subject) -> None:
    calls = _calls(subject.make(max_tokens=TOOL_TOKENS), [multiply, add], tool_required=True)
    assert [set(call.tool_kwargs) for call in calls] == [{"a", "b"}], f"calls: {calls}"


@feature("a call is streamed in pieces")
def _streamed_call(subject: Subject) -> None:
    llm = subject.make(max_tokens=TOOL_TOKENS)
    responses = list(llm.stream_chat_with_tools(_tools([add]), user_msg=ASK_FOR_A_CALL, tool_required=True))
    (call,) = llm.get_tool_calls_from_response(responses[-1])
    assert len(responses) > 3, "it comes in one piece"
    assert [call.tool_kwargs] == [one.tool_kwargs for one in _calls(llm, [add], tool_required=True)], "another call"


@feature("a call that max_tokens cut is no empty answer")
def _cut_call(subject: Subject) -> None:
    check_told_of_cut(
        error_of(lambda: _calls(subject.make(max_tokens=3), [multiply, add], error_if_none=False, tool_required=True))
    )


@feature("results of tools are sent back")
def _tool_results(subject: Subject) -> None:
    llm = subject.make(max_tokens=TOOL_TOKENS)
    response = llm.chat_with_tools(_tools([add]), user_msg=ASK_FOR_A_CALL, tool_required=True)
    (call,) = llm.get_tool_calls_from_response(response)

    def told(content: str) -> str:
        result = message(content, role="tool", additional_kwargs={"tool_call_id": call.tool_id})
        history = [message(ASK_FOR_A_CALL), response.message, result]
        return llm.chat([*history, message("What is the result?")]).message.content or ""

    assert told("12345") != told("none"), "the result does not change the answer"


@feature("structured output by schema")
def _structured(subject: Subject) -> None:
    llm = subject.make(max_tokens=TOOL_TOKENS)
    assert isinstance(llm.structured_predict(City, ask_for_json(), country="France"), City), "no City"
    assert isinstance(_last(llm.stream_structured_predict(City, ask_for_json(), country="France")), City), "no City"


@feature("structured output that max_tokens cut is an error that says so")
def _cut_structure(subject: Subject) -> None:
    check_told_of_cut(
        error_of(lambda: subject.make(max_tokens=3).structured_predict(City, ask_for_json(), country="France"))
    )


@feature("thoughts apart from the answer")
def _thoughts(subject: Subject) -> None:
    from llama_index.core.base.llms.types import ThinkingBlock

    if subject.thinking is None:
        raise NotRunError("the model is made to think by the engine's grammar")
    llm = subject.thinking()
    for response in (llm.chat(asked(QUESTION)), _last(llm.stream_chat(asked(QUESTION)))):
        thoughts = [block.content or "" for block in response.message.blocks if isinstance(block, ThinkingBlock)]
        assert "".join(thoughts) in thinking.THOUGHTS, "they are lost"
        assert response.message.content in thinking.ANSWERS, f"the answer is {response.message.content!r}"


@feature("a LoRA adapter for a call")
def _lora(subject: Subject) -> None:
    assert subject.with_lora, "there is no way to name one"
    assert text_of(subject.with_lora(subject.make())) != text_of(subject.make()), f"{LORA} does nothing"


@feature("counts tokens as the model does, without a network")
def _count(subject: Subject) -> None:
    text = "Ascend NPUs, 昇腾, and a zebra"
    tokenizer = getattr(subject.make(), "tokenizer", None)
    count = tokenizer.encode if hasattr(tokenizer, "encode") else tokenizer
    assert callable(count), "it has no tokenizer"
    assert len(count(text)) == subject.num_tokens(text), "another count than the engine's"


@feature("knows the longest context")
def _context(subject: Subject) -> None:
    known = subject.make().metadata.context_window
    assert known == CONTEXT, f"metadata says {known}"


@feature("a prompt that is too long is an error that tells the limit")
def _too_long(subject: Subject) -> None:
    check_told(error_of(lambda: text_of(subject.make(), "word " * 2 * CONTEXT)), str(CONTEXT))


@feature("a misspelt argument is an error that names it")
def _misspelt(subject: Subject) -> None:
    check_told(error_of(lambda: text_of(subject.make(temprature=1))), "temprature")


@feature("a picture for a model without eyes is an error that says so")
def _picture(subject: Subject) -> None:
    from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock

    image = ImageBlock(image=base64.b64decode(PNG), image_mimetype="image/png")
    message = ChatMessage(blocks=[TextBlock(text=QUESTION), image])
    check_told(error_of(lambda: subject.make().chat([message])), "multimodal", "image")


def _tools(functions: Sequence[Callable[..., Any]]) -> list[Any]:
    from llama_index.core.tools import FunctionTool

    return [FunctionTool.from_defaults(function) for function in functions]


def _calls(
    llm: Any, functions: Sequence[Callable[..., Any]], *, error_if_none: bool = True, **choice: Any
) -> list[Any]:
    response: ChatResponse = llm.chat_with_tools(_tools(functions), user_msg=ASK_FOR_A_CALL, **choice)
    return list(llm.get_tool_calls_from_response(response, error_on_no_tool_call=error_if_none))


def _last(stream: Iterable[Any]) -> Any:
    return list(stream)[-1]
