"""The features, of a chat model class of LangChain."""

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool

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

FEATURES = Features()
feature = FEATURES.named
ADD, MULTIPLY = tool(add), tool(multiply)
ASK_FOR_JSON = "The capital of France as JSON."


@feature("answers messages")
def _answers(subject: Subject) -> None:
    assert subject.make().invoke(QUESTION).content, "the answer is empty"


@feature("streams token by token")
def _streams(subject: Subject) -> None:
    pieces = [chunk.content for chunk in subject.make().stream(QUESTION) if chunk.content]
    assert "".join(pieces) == subject.make().invoke(QUESTION).content, "the pieces are not the answer"
    assert len(pieces) >= MAX_TOKENS / 2, f"{len(pieces)} pieces for {MAX_TOKENS} tokens"


@feature("asynchronous calls and streams")
def _asynchronous(subject: Subject) -> None:
    async def both() -> list[str]:
        model = subject.make()
        pieces = [chunk.content async for chunk in model.astream(QUESTION) if chunk.content]
        assert len(pieces) >= MAX_TOKENS / 2, f"{len(pieces)} pieces for {MAX_TOKENS} tokens"
        return ["".join(pieces), (await model.ainvoke(QUESTION)).content]

    assert set(asyncio.run(both())) == {subject.make().invoke(QUESTION).content}, "other answers than the synchronous"


@feature("one object in one event loop after another")
def _loops(subject: Subject) -> None:
    model = subject.make()
    first, second = (asyncio.run(model.ainvoke(QUESTION)).content for _ in range(2))
    assert first == second, "another answer"


@feature("usage of an answer and of a stream")
def _usage(subject: Subject) -> None:
    model = subject.make()
    whole = model.invoke(QUESTION).usage_metadata
    assert whole, "no usage_metadata"
    assert whole["output_tokens"] == MAX_TOKENS, f"{whole['output_tokens']} output_tokens of {MAX_TOKENS}"
    assert _sum(model.stream(QUESTION)).usage_metadata == whole, "a stream's usage_metadata differs"


@feature("32 inputs of a batch reach the engine at once")
def _batch(subject: Subject) -> None:
    with subject.watched() as watch:
        subject.make(max_tokens=64).batch([f"Count to {i}." for i in range(32)])
    assert watch.peak > 24, f"at most {watch.peak} at once"


@feature("32 asynchronous calls reach the engine at once")
def _abatch(subject: Subject) -> None:
    async def all_at_once() -> None:
        model = subject.make(max_tokens=64)
        await asyncio.gather(*(model.ainvoke(f"Count to {i}.") for i in range(32)))

    with subject.watched() as watch:
        asyncio.run(all_at_once())
    assert watch.peak > 24, f"at most {watch.peak} at once"


@feature("one bad input of a batch leaves the others their answers")
def _errors_of_a_batch(subject: Subject) -> None:
    good, bad = subject.make().batch([QUESTION, "word " * 2 * CONTEXT], return_exceptions=True)
    assert isinstance(good, AIMessage), f"the good input got {type(good).__name__}"
    assert isinstance(bad, Exception), "the bad input got an answer"


@feature("a stream that is left is aborted in the engine")
def _left_stream(subject: Subject) -> None:
    stream = subject.make(max_tokens=2000, fields={"ignore_eos": True}).stream(QUESTION)
    for _ in range(3):
        next(stream)
    stream.close()
    assert subject.wait_until(lambda running: running == 0, 1), "it runs on after 1 s"


@feature("a cancelled call is aborted in the engine")
def _cancelled(subject: Subject) -> None:
    async def cancel() -> None:
        model = subject.make(max_tokens=2000, fields={"ignore_eos": True})
        call = asyncio.create_task(model.ainvoke(QUESTION))
        assert await asyncio.to_thread(subject.wait_until, lambda running: running > 0, 5), "it never ran"
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(subject.wait_until, lambda running: running == 0, 1), "it runs on after 1 s"

    asyncio.run(cancel())


@feature("a time-out is an error, and frees the engine")
def _timeout(subject: Subject) -> None:
    error = error_of(lambda: subject.make(max_tokens=2000, timeout=0.5, fields={"ignore_eos": True}).invoke(QUESTION))
    check_told(error.lower(), "time")
    assert subject.wait_until(lambda running: running == 0, 1), "it runs on after 1 s"


@feature("stop words")
def _stop(subject: Subject) -> None:
    whole = subject.make().invoke(QUESTION).content
    word = max(whole.split(), key=len)
    assert subject.make(stop=[word]).invoke(QUESTION).content == whole.split(word)[0], "the model's are not kept"
    assert subject.make().invoke(QUESTION, stop=[word]).content == whole.split(word)[0], "the call's are not kept"


@feature("the same seed gives the same answer")
def _seed(subject: Subject) -> None:
    def answers(seed: int) -> str:
        return subject.make(temperature=1.0, seed=seed, max_tokens=32).invoke(QUESTION).content

    assert answers(7) == answers(7) != answers(8), "answers do not go by the seed"


@feature("several answers to one prompt")
def _several(subject: Subject) -> None:
    (generations,) = subject.make(n=3, temperature=1.0).generate([[HumanMessage(QUESTION)]]).generations
    assert len(generations) == 3, f"{len(generations)} answers, not 3"


@feature("log-probabilities")
def _logprobs(subject: Subject) -> None:
    metadata = subject.make(logprobs=True, top_logprobs=3).invoke(QUESTION).response_metadata
    tokens = (metadata.get("logprobs") or {}).get("content") or []
    assert [len(token["top_logprobs"]) for token in tokens] == [3] * MAX_TOKENS, "not three for each token"


@feature("the engine's own sampling fields")
def _fields(subject: Subject) -> None:
    greedy = subject.make().invoke(QUESTION).content
    assert subject.make(temperature=1.0, fields={"top_k": 1}).invoke(QUESTION).content == greedy, "top_k=1 is not kept"


@feature("a tool that is named is called")
def _named_tool(subject: Subject) -> None:
    model = subject.make(max_tokens=TOOL_TOKENS).bind_tools([MULTIPLY, ADD], tool_choice="add")
    calls = model.invoke(ASK_FOR_A_CALL).tool_calls
    assert [(call["name"], set(call["args"])) for call in calls] == [("add", {"a", "b"})], f"calls: {calls}"


@feature("some tool is called, and once, where that is asked for")
def _any_tool(subject: Subject) -> None:
    model = subject.make(max_tokens=TOOL_TOKENS)
    calls = model.bind_tools([MULTIPLY, ADD], tool_choice="any", parallel_tool_calls=False).invoke(QUESTION).tool_calls
    assert [set(call["args"]) for call in calls] == [{"a", "b"}], f"calls: {calls}"


@feature("a call is streamed in pieces")
def _streamed_call(subject: Subject) -> None:
    model = subject.make(max_tokens=TOOL_TOKENS).bind_tools([ADD], tool_choice="add")
    chunks = list(model.stream(ASK_FOR_A_CALL))
    assert sum(bool(chunk.tool_call_chunks) for chunk in chunks) > 3, "it comes in one piece"
    assert _sum(chunks).tool_calls[0]["args"] == model.invoke(ASK_FOR_A_CALL).tool_calls[0]["args"], "another call"


@feature("a call that max_tokens cut is no empty answer")
def _cut_call(subject: Subject) -> None:
    for choice in ("add", "any"):
        model = subject.make(max_tokens=3).bind_tools([ADD], tool_choice=choice)
        answers: list[AIMessage] = []
        try:
            answers.append(model.invoke(ASK_FOR_A_CALL))
        except Exception as error:
            check_told_of_cut(f"{type(error).__name__}: {error}")
        for answer in answers:
            assert answer.invalid_tool_calls, f"tool_choice={choice!r} gives content={answer.content!r} and no calls"


@feature("results of tools are sent back")
def _tool_results(subject: Subject) -> None:
    call = {"name": "add", "args": {"a": 2, "b": 3}, "id": "c1", "type": "tool_call"}
    history = [HumanMessage(ASK_FOR_A_CALL), AIMessage("", tool_calls=[call]), ToolMessage("12345", tool_call_id="c1")]
    model = subject.make()
    with_result = model.invoke([*history, HumanMessage("What is the result?")])
    other = model.invoke([*history[:2], ToolMessage("none", tool_call_id="c1"), HumanMessage("What is the result?")])
    assert with_result.content != other.content, "the result does not change the answer"


@feature("structured output by schema")
def _structured(subject: Subject) -> None:
    for method in ("json_schema", "function_calling"):
        model = subject.make(max_tokens=TOOL_TOKENS).with_structured_output(City, method=method)
        assert isinstance(model.invoke(ASK_FOR_JSON), City), f"{method}: no City"


@feature("any JSON object")
def _json_mode(subject: Subject) -> None:
    model = subject.make(max_tokens=TOOL_TOKENS).with_structured_output(None, method="json_mode")
    assert isinstance(model.invoke(ASK_FOR_JSON), dict), "no object"


@feature("structured output that max_tokens cut is an error that says so")
def _cut_structure(subject: Subject) -> None:
    check_told_of_cut(
        error_of(
            lambda: subject.make(max_tokens=3).with_structured_output(City, method="json_schema").invoke(ASK_FOR_JSON)
        )
    )


@feature("thoughts apart from the answer")
def _thoughts(subject: Subject) -> None:
    if subject.thinking is None:
        raise NotRunError("the model is made to think by the engine's grammar")
    model = subject.thinking()
    for message in (model.invoke(QUESTION), _sum(model.stream(QUESTION))):
        thoughts = [block["reasoning"] for block in message.content_blocks if block["type"] == "reasoning"]
        assert "".join(thoughts) in thinking.THOUGHTS, "they are lost"
        assert message.text in thinking.ANSWERS, f"the answer is {message.text!r}"


@feature("a LoRA adapter for a call")
def _lora(subject: Subject) -> None:
    assert subject.with_lora, "there is no way to name one"
    model = subject.make()
    assert subject.with_lora(model).invoke(QUESTION).content != model.invoke(QUESTION).content, f"{LORA} does nothing"


@feature("counts tokens as the model does, without a network")
def _count(subject: Subject) -> None:
    text = "Ascend NPUs, 昇腾, and a zebra"
    assert subject.make().get_num_tokens(text) == subject.num_tokens(text), "another count than the engine's"


@feature("knows the longest context")
def _context(subject: Subject) -> None:
    model = subject.make()
    if hasattr(model, "engine_info"):
        model.engine_info()
    known = (model.profile or {}).get("max_input_tokens")
    assert known == CONTEXT, f"profile says {known}"


@feature("a prompt that is too long is an error that tells the limit")
def _too_long(subject: Subject) -> None:
    check_told(error_of(lambda: subject.make().invoke("word " * 2 * CONTEXT)), str(CONTEXT))


@feature("a misspelt argument is an error that names it")
def _misspelt(subject: Subject) -> None:
    check_told(error_of(lambda: subject.make(temprature=1).invoke(QUESTION)), "temprature")


@feature("a picture for a model without eyes is an error that says so")
def _picture(subject: Subject) -> None:
    parts: list[Any] = [
        {"type": "text", "text": QUESTION},
        {"type": "image", "base64": PNG, "mime_type": "image/png"},
    ]
    check_told(error_of(lambda: subject.make().invoke([HumanMessage(content=parts)])), "multimodal", "image")


def _sum(chunks: Any) -> AIMessageChunk:
    first, *others = list(chunks)
    return sum(others, first)
