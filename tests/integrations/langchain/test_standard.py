"""LangChain's own tests of chat models and embeddings, on real models: in this process, and against a server."""

import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests

from langchain_ascend import AscendEmbeddings, ChatAscend
from tests.conftest import CHAT_MODEL, EMBEDDING_MODEL
from tests.integrations.conftest import SETTINGS

# Greedy, so that an answer is the same each time. By itself, a model as small as this one does not call a tool, does
# not stop calling them, and does not end a text that it must write.
GENERATION = {
    "temperature": 0,
    "max_tokens": 100,
    "tool_choice": "any",
    "parallel_tool_calls": False,
    "extra_body": {"frequency_penalty": 0.5},
}


class ChatAscendProperties:
    """What ChatAscend is for. SmolLM2 takes text only: tests of images, sounds and PDF files are skipped."""

    chat_model_class = ChatAscend
    supports_json_mode = True
    supports_anthropic_inputs = True
    # It asks for its first token's time of recorded answers: here the engine itself answers.
    enable_vcr_tests = True

    @pytest.fixture
    def vcr(self):
        return SimpleNamespace(responses=["nothing to record"])


class TestChatAscendUnit(ChatAscendProperties, ChatModelUnitTests):
    # These give a key, which only a server wants; none is asked.
    chat_model_params: ClassVar = {"model": CHAT_MODEL, "base_url": "http://127.0.0.1:8000"}

    @pytest.fixture(autouse=True)
    def _may_be_loaded(self, monkeypatch):
        """The test of loading has core's own list of classes in mind, in which no third party stands. An application
        names the class: load(..., allowed_objects=[ChatAscend]).
        """
        allowed = {tuple(ChatAscend.lc_id())}
        module = sys.modules["langchain_core.load.load"]  # hidden by the function load
        monkeypatch.setattr(module, "_get_default_allowed_class_paths", lambda mode: allowed)

    @property
    def init_from_env_params(self):
        return {"ASCEND_API_KEY": "secret"}, {"base_url": "http://127.0.0.1:8000"}, {"api_key": "secret"}


class ChatAscendIntegration(ChatAscendProperties, ChatModelIntegrationTests):
    # A call may name another model: an adapter, or the model itself.
    supports_model_override = True
    model_override_value = CHAT_MODEL


@pytest.mark.engine
@pytest.mark.claim  # three minutes, and so long again against a server; ChatAscend has its own tests in every run
@pytest.mark.usefixtures("tool_engine")
class TestEmbeddedChatAscend(ChatAscendIntegration):
    chat_model_params: ClassVar = {"model": CHAT_MODEL, **SETTINGS, **GENERATION}


@pytest.mark.engine
@pytest.mark.claim
class TestRemoteChatAscend(ChatAscendIntegration):
    chat_model_params: ClassVar = {}

    @pytest.fixture(autouse=True)
    def _server(self, tool_server):
        where = {"model": CHAT_MODEL, "base_url": tool_server.url, "api_key": tool_server.api_key}
        self.chat_model_params = {**where, **GENERATION}


class TestAscendEmbeddingsUnit(EmbeddingsUnitTests):
    embeddings_class = AscendEmbeddings
    embedding_model_params: ClassVar = {"model": EMBEDDING_MODEL, "dtype": "float32"}


@pytest.mark.engine
@pytest.mark.usefixtures("embedding_engine")
class TestEmbeddedAscendEmbeddings(EmbeddingsIntegrationTests):
    embeddings_class = AscendEmbeddings
    embedding_model_params: ClassVar = {"model": EMBEDDING_MODEL, "dtype": "float32"}


@pytest.mark.engine
@pytest.mark.claim
class TestRemoteAscendEmbeddings(EmbeddingsIntegrationTests):
    embeddings_class = AscendEmbeddings
    embedding_model_params: ClassVar = {}

    @pytest.fixture(autouse=True)
    def _server(self, embedding_server):
        self.embedding_model_params = {"base_url": embedding_server.url, "api_key": embedding_server.api_key}
