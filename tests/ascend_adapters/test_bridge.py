import asyncio
import contextvars
import os
import threading
import time

import pytest

from ascend_adapters.bridge import io_loop, iterate_sync, on_io_loop, run_sync, stream_on_io_loop


async def loop_here():
    return asyncio.get_running_loop()


class Counter:
    """A stream on the I/O loop that knows whether it was closed."""

    def __init__(self):
        self.closed = threading.Event()

    @stream_on_io_loop
    async def count(self):
        try:
            for i in range(1000):
                await asyncio.sleep(0.001)
                yield i
        finally:
            self.closed.set()


def test_calls_from_any_loop_run_on_the_io_loop():
    call = on_io_loop(loop_here)
    assert run_sync(call()) is io_loop()
    assert asyncio.run(call()) is io_loop()


def test_the_callers_context_goes_along():
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("mine")

    async def read():
        return variable.get()

    assert run_sync(read()) == "mine"


def test_a_cancelled_call_is_cancelled_on_the_io_loop():
    cancelled = threading.Event()

    @on_io_loop
    async def wait_forever():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def give_up():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait_forever(), 0.05)

    asyncio.run(give_up())
    assert cancelled.wait(1)


def test_a_stream_is_closed_when_its_reader_stops():
    counter = Counter()
    stream = iterate_sync(counter.count())
    assert [next(stream), next(stream)] == [0, 1]
    stream.close()
    assert counter.closed.wait(1)


async def test_a_stream_is_closed_when_its_asynchronous_reader_is_cancelled():
    counter = Counter()

    async def read():
        async for _ in counter.count():
            pass

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await asyncio.to_thread(counter.closed.wait, 1)


def test_waiting_for_itself_is_an_error_instead_of_a_deadlock():
    async def wait_for_itself():
        return run_sync(loop_here())

    with pytest.raises(RuntimeError, match="await the asynchronous one"):
        run_sync(wait_for_itself())


def test_a_forked_child_gets_a_loop_of_its_own():
    run_sync(loop_here())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run_sync(asyncio.sleep(0))
            code = 7
        finally:
            os._exit(code)
    deadline = time.monotonic() + 5
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        assert time.monotonic() < deadline, "the child waits for its parent's thread"
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 7
