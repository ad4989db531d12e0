"""A request that nobody waits for any more is aborted, and its KV blocks are free within a second."""

import asyncio
import time

import pytest

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import iterate_sync, run_sync
from ascend_adapters.errors import RequestTimeoutError
from langchain_ascend import ChatAscend
from tests.e2e.prompts import metric

pytestmark = pytest.mark.engine

ENDLESS = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 4000, "ignore_eos": True}


def is_idle(engine):
    return metric(engine, "vllm:num_requests_running") == 0 and metric(engine, "vllm:kv_cache_usage_perc") == 0


def becomes_idle(engine, seconds=1.0):
    """Whether the engine holds no request and no KV block within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_idle(engine):
            return True
        time.sleep(0.05)
    return is_idle(engine)


def wait_until_busy(engine):
    deadline = time.monotonic() + 10
    while metric(engine, "vllm:kv_cache_usage_perc") == 0:
        assert time.monotonic() < deadline, "the request never reached the engine"
        time.sleep(0.05)


def test_a_stream_closed_after_three_tokens(engine):
    stream = iterate_sync(engine.chat_stream(ENDLESS))
    for _ in range(3):
        next(stream)
    wait_until_busy(engine)
    stream.close()
    assert becomes_idle(engine)


async def test_a_cancelled_ainvoke(engine):
    model = ChatAscend(backend=engine, max_tokens=4000)
    call = asyncio.create_task(model.ainvoke("Count.", ignore_eos=True))
    await asyncio.to_thread(wait_until_busy, engine)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(becomes_idle, engine)


async def test_a_cancelled_astream(engine):
    model = ChatAscend(backend=engine, max_tokens=4000)

    async def read_on():
        async for _ in model.astream("Count.", ignore_eos=True):
            pass

    call = asyncio.create_task(read_on())
    await asyncio.to_thread(wait_until_busy, engine)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(becomes_idle, engine)


def test_a_time_out(engine):
    hurried = EmbeddedBackend(engine.engine.model, timeout=0.5, **engine.engine.settings.as_dict())
    assert hurried.engine is engine.engine
    with pytest.raises(RequestTimeoutError, match=r"timeout=0\.5 s"):
        run_sync(hurried.chat(ENDLESS))
    assert becomes_idle(engine)
