"""What tests of LLaMA-Factory share."""

import asyncio

import pytest

from llamafactory_ascend import register


@pytest.fixture(scope="session", autouse=True)
def _registered():
    """Before any test, as `llamafactory-ascend` does it. Not while tests are collected: it imports LLaMA-Factory."""
    register()


@pytest.fixture(scope="module")
def _event_loop():
    """LLaMA-Factory's huggingface engine makes itself the thread's event loop where there is none, and leaves it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
