"""Callers that end in the middle of a stream: a thread that dies, an event loop that closes, a fork. The engine is
freed within a second, and answers on.
"""

import asyncio
import gc
import os
import threading

import pytest

from langchain_ascend import ChatAscend
from tests.e2e.test_cancellation import becomes_idle, wait_until_busy

pytestmark = pytest.mark.engine

ENDLESS = {"max_tokens": 4000}


class LangChain:
    """What is asked of ChatAscend."""

    def __init__(self, engine):
        self.model = ChatAscend(backend=engine, **ENDLESS, extra_body={"ignore_eos": True})

    def stream(self):
        return self.model.stream("Count.")

    async def astream(self):
        return self.model.astream("Count.")

    def answer(self):
        return self.model.invoke("Hi", max_tokens=4).content


class LlamaIndex:
    """What is asked of LlamaIndex's Ascend."""

    def __init__(self, engine):
        from llama_index.core.base.llms.types import ChatMessage
        from llama_index.llms.ascend import Ascend

        self.messages = [ChatMessage(content="Count.")]
        self.llm = Ascend(backend=engine, **ENDLESS, additional_kwargs={"ignore_eos": True})

    def stream(self):
        return self.llm.stream_chat(self.messages)

    async def astream(self):
        return await self.llm.astream_chat(self.messages)

    def answer(self):
        return self.llm.chat(self.messages, max_tokens=4).message.content


@pytest.fixture(params=[LangChain, LlamaIndex])
def asked(request, engine):
    return request.param(engine)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_in_a_stream(asked, engine):
    def read_one_and_die():
        next(asked.stream())
        wait_until_busy(engine)
        raise RuntimeError("it dies")

    thread = threading.Thread(target=read_one_and_die)
    thread.start()
    thread.join()
    gc.collect()
    assert becomes_idle(engine)
    assert asked.answer()


def test_an_event_loop_that_ends_in_a_stream(asked, engine):
    async def read_one():
        stream = await asked.astream()
        await anext(stream)
        await asyncio.to_thread(wait_until_busy, engine)
        return stream  # neither read to its end nor closed

    left = asyncio.run(read_one())
    assert becomes_idle(engine)
    del left
    assert asked.answer()


def test_an_event_loop_that_is_closed_under_a_stream(asked, engine):
    async def read_one():
        stream = await asked.astream()
        await anext(stream)
        return stream

    loop = asyncio.new_event_loop()
    left = loop.run_until_complete(read_one())
    wait_until_busy(engine)
    loop.close()
    del left
    gc.collect()
    assert becomes_idle(engine)
    assert asked.answer()


def test_a_child_that_is_forked_in_a_stream(asked, engine):
    """It has an answer of its own; its parent's stream goes on."""
    stream = asked.stream()
    next(stream)
    child = os.fork()
    if child == 0:
        answered = False
        try:
            answered = bool(asked.answer())
        finally:
            os._exit(0 if answered else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    next(stream)
    stream.close()
    assert becomes_idle(engine)
