"""What tests of LLaMA-Factory share."""

import asyncio

import pytest


@pytest.fixture(scope="module")
def _event_loop():
    """LLaMA-Factory's huggingface engine makes itself the thread's event loop where there is none, and leaves it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
