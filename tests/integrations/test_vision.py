"""Pictures through both frameworks to a tiny model that takes them."""

import base64
from types import SimpleNamespace
from typing import ClassVar

import httpx
import pytest
from langchain_core.messages import HumanMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests.chat_models import ChatModelTests

from ascend_adapters.bridge import run_sync
from langchain_ascend import ChatAscend
from tests.pictures import png

pytestmark = pytest.mark.engine

QUESTION = "What is this?"
SAMPLING = {"temperature": 0, "max_tokens": 8, "logprobs": True}
# Random weights answer in any bytes: text tokens only.
FIELDS = {"allowed_token_ids": list(range(97, 123)), "ignore_eos": True}


def logprobs_of_the_engine(backend, picture):
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"messages": [{"role": "user", "content": parts}], **SAMPLING, **FIELDS}
    return _logprobs(run_sync(backend.chat(body))["choices"][0]["logprobs"])


def of_langchain(backend, picture):
    encoded = base64.b64encode(picture).decode()
    parts = [{"type": "text", "text": QUESTION}, {"type": "image", "base64": encoded, "mime_type": "image/png"}]
    answer = ChatAscend(backend=backend, **SAMPLING, extra_body=FIELDS).invoke([HumanMessage(parts)])
    return _logprobs(answer.response_metadata["logprobs"])


def of_llama_index(backend, picture, **block):
    from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
    from llama_index.llms.ascend import Ascend

    image = ImageBlock(**block) if block else ImageBlock(image=picture, image_mimetype="image/png")
    message = ChatMessage(blocks=[TextBlock(text=QUESTION), image])
    answer = Ascend(backend=backend, **SAMPLING, additional_kwargs=FIELDS).chat([message])
    return [likeliest.logprob for (likeliest,) in answer.logprobs]


def _logprobs(given):
    return [token["logprob"] for token in given["content"]]


@pytest.mark.parametrize("ask", [of_langchain, of_llama_index])
def test_a_picture_reaches_the_model_as_it_is(seeing_engine, ask):
    for seed in (1, 2):
        wanted = pytest.approx(logprobs_of_the_engine(seeing_engine, png(seed)), abs=1e-4)
        assert ask(seeing_engine, png(seed)) == wanted
        assert ask(seeing_engine, png(seed + 2)) != wanted


def test_a_picture_may_be_a_file(seeing_engine, tmp_path):
    (tmp_path / "picture.png").write_bytes(png(1))
    found = of_llama_index(seeing_engine, None, path=tmp_path / "picture.png")
    assert found == pytest.approx(logprobs_of_the_engine(seeing_engine, png(1)), abs=1e-4)


class TestLangChainsOwn(ChatModelTests):
    """Of LangChain's standard suite what is about pictures; the rest asks for a model that speaks."""

    test_image_inputs = ChatModelIntegrationTests.test_image_inputs
    test_image_tool_message = ChatModelIntegrationTests.test_image_tool_message

    chat_model_class = ChatAscend
    chat_model_params: ClassVar = {}
    supports_image_inputs = True
    supports_image_urls = False  # no host is allowed by default
    supports_image_tool_message = True

    @pytest.fixture(autouse=True)
    def _engine(self, seeing_engine, monkeypatch):
        engine = seeing_engine.engine
        self.chat_model_params = {"model": engine.model, **engine.settings.as_dict(), "max_tokens": 8, "max_retries": 0}
        # They take their picture from the internet.
        monkeypatch.setattr(httpx, "get", lambda url, **_: SimpleNamespace(content=png(1)))
