"""One event loop for all I/O of the process, and the ways onto it from synchronous and asynchronous code.

Connections belong to an event loop, but callers come from many loops and threads: a notebook's loop, one
asyncio.run after another, thread pools. So all I/O runs on one loop in a thread of its own; callers wait for
it in their own way, and a call that is cancelled there is cancelled here.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Future
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

T = TypeVar("T")
P = ParamSpec("P")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def io_loop() -> asyncio.AbstractEventLoop:
    """The process's I/O loop; its thread starts on first use."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="ascend-io", daemon=True).start()
        return _loop


def _forget_loop() -> None:
    """A forked child has the loop's memory but not its thread: let it make its own."""
    global _loop, _lock
    _loop, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_loop)


def run_sync(call: Coroutine[Any, Any, T]) -> T:
    """Run `call` on the I/O loop and wait for it; Ctrl-C cancels it."""
    future = _submit(call)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def iterate_sync(stream: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """The items of `stream` as they come; closing this generator closes the stream."""
    while (item := run_sync(_next(stream))) is not _END:
        try:
            yield cast(T, item)
        except BaseException:
            # While the interpreter ends, the loop's thread no longer runs; waiting for it would never end.
            if not sys.is_finalizing():
                run_sync(stream.aclose())
            raise


def on_io_loop(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorator: the coroutine's body runs on the I/O loop, whichever loop awaits it."""

    @wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await _on_loop(method(*args, **kwargs))

    return call


def stream_on_io_loop(method: Callable[P, AsyncGenerator[T, None]]) -> Callable[P, AsyncGenerator[T, None]]:
    """Decorator: on_io_loop for an asynchronous generator."""

    @wraps(method)
    async def stream(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        inner = method(*args, **kwargs)
        # Cancelled while waiting here, the step on the I/O loop is cancelled too, and ends the inner stream.
        while (item := await _on_loop(_next(inner))) is not _END:
            try:
                yield cast(T, item)
            except BaseException:
                await _on_loop(inner.aclose())
                raise

    return stream


_END = object()


async def _next(stream: AsyncGenerator[T, None]) -> T | object:
    return await anext(stream, _END)


async def _on_loop(call: Coroutine[Any, Any, T]) -> T:
    if asyncio.get_running_loop() is io_loop():
        return await call
    return await asyncio.wrap_future(_submit(call))


def _submit(call: Coroutine[Any, Any, T]) -> "Future[T]":
    loop = io_loop()
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop:
        call.close()
        raise RuntimeError("a synchronous call on the I/O loop would wait for itself: await the asynchronous one.")
    return asyncio.run_coroutine_threadsafe(call, loop)
