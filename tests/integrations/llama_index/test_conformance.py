"""The suite on our classes, with made up answers and on real engines, and on core's own mock classes to prove it."""

import json

import pytest

from ascend_adapters.testing import FakeBackend
from tests.integrations.llama_index.conformance import (
    ASK_FOR_A_CALL,
    EmbeddingConformance,
    LLMConformance,
    StructuredConformance,
    ToolConformance,
    events,
)

__all__ = ["events"]
CALL = {"id": "call-1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}


def ascend(**settings):
    from llama_index.llms.ascend import Ascend

    return Ascend(**settings)


def ascend_embedding(**settings):
    from llama_index.embeddings.ascend import AscendEmbedding

    return AscendEmbedding(**settings)


def reply(prompt):
    if prompt == ASK_FOR_A_CALL:
        return {"tool_calls": [CALL]}
    return json.dumps({"name": "Paris"}) if "JSON" in prompt else "It is Paris."


class TestAscend(LLMConformance, ToolConformance, StructuredConformance):
    def make(self, **settings):
        return ascend(backend=FakeBackend(reply), **settings)


class TestAscendEmbedding(EmbeddingConformance):
    def make(self, **settings):
        return ascend_embedding(backend=FakeBackend(), **settings)


@pytest.mark.engine
class TestAscendOnAnEngine(LLMConformance, ToolConformance, StructuredConformance):
    @pytest.fixture(autouse=True)
    def _engine(self, tool_engine):
        self.engine = tool_engine

    def make(self, **settings):
        return ascend(backend=self.engine, **{"temperature": 0, "max_tokens": 64, **settings})


@pytest.mark.engine
@pytest.mark.claim
class TestAscendOnAServer(LLMConformance, ToolConformance, StructuredConformance):
    @pytest.fixture(autouse=True)
    def _server(self, tool_server):
        self.server = tool_server

    def make(self, **settings):
        where = {"base_url": self.server.url, "api_key": self.server.api_key}
        return ascend(**where, **{"temperature": 0, "max_tokens": 64, **settings})


@pytest.mark.engine
class TestAscendEmbeddingOnAnEngine(EmbeddingConformance):
    @pytest.fixture(autouse=True)
    def _engine(self, embedding_engine):
        self.engine = embedding_engine

    def make(self, **settings):
        return ascend_embedding(backend=self.engine, **settings)


lags = pytest.mark.xfail(reason="core 0.14.25: a streamed response of MockLLM lags one piece behind", strict=True)


class TestMockLLM(LLMConformance):
    """Core's own, and proof that the suite finds what is wrong."""

    def make(self, **settings):
        from llama_index.core.llms.mock import MockLLM

        return MockLLM(max_tokens=16, **settings)

    @lags
    def test_a_streamed_completion_adds_up_to_the_answer(self, llm):
        super().test_a_streamed_completion_adds_up_to_the_answer(llm)

    @lags
    def test_a_streamed_chat_adds_up_to_the_answer(self, llm):
        super().test_a_streamed_chat_adds_up_to_the_answer(llm)

    @lags
    async def test_asynchronous_streams_add_up_to_the_answer(self, llm):
        await super().test_asynchronous_streams_add_up_to_the_answer(llm)


class TestMockEmbedding(EmbeddingConformance):
    """Core's own: all vectors are the same."""

    def make(self, **settings):
        from llama_index.core import MockEmbedding

        return MockEmbedding(embed_dim=8, **settings)
