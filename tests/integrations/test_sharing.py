"""One engine for both frameworks."""

import asyncio
import logging

import psutil
import pytest

from langchain_ascend import AscendEmbeddings, AscendLLM, ChatAscend
from tests.conftest import CHAT_MODEL
from tests.integrations.conftest import SETTINGS

CHAT = {"model": CHAT_MODEL, "max_model_len": 333}
EMBEDDING = {"model": "all-minilm-l6-v2", "max_model_len": 77}
BYTES_OF_WEIGHTS = 134_515_008 * 4  # SmolLM2-135M in fp32


def test_the_same_model_and_settings_are_one_engine():
    from llama_index.embeddings.ascend import AscendEmbedding
    from llama_index.llms.ascend import Ascend

    engines = {kind(**CHAT)._backend.engine for kind in (ChatAscend, AscendLLM, Ascend)}
    assert len(engines) == 1
    assert engines.isdisjoint({ChatAscend(**{**CHAT, "max_model_len": 334})._backend.engine})
    assert AscendEmbeddings(**EMBEDDING)._backend.engine is AscendEmbedding(**EMBEDDING)._backend.engine


@pytest.mark.engine
def test_both_frameworks_use_one_set_of_weights(tool_engine):
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.llms.ascend import Ascend

    def processes():
        return {child.pid: child.memory_full_info().uss for child in psutil.Process().children(recursive=True)}

    llm = Ascend(model=CHAT_MODEL, **SETTINGS, max_tokens=4)
    chat = ChatAscend(model=CHAT_MODEL, **SETTINGS, max_tokens=4)
    assert chat.invoke("Hi").content
    before = processes()
    assert llm.chat([ChatMessage(content="Hi")]).message.content
    assert chat._backend.engine.pid == llm._backend.engine.pid == tool_engine.engine.pid
    after = processes()
    assert after.keys() == before.keys()
    assert sum(after.values()) - sum(before.values()) < 0.1 * BYTES_OF_WEIGHTS


@pytest.mark.engine
async def test_other_settings_start_another_engine_and_say_so(tool_engine, caplog):
    third = AscendLLM(model=CHAT_MODEL, **{**SETTINGS, "max_model_len": 2048})
    with caplog.at_level(logging.WARNING), pytest.raises(TimeoutError):
        await asyncio.wait_for(third.ainvoke("Hi"), 2)
    await asyncio.to_thread(third.close)
    assert "another engine of 'smollm2-135m-instruct' is started, with weights of its own" in caplog.text
    assert "(max_model_len=4096, here 2048)" in caplog.text
    assert "Give the same settings to share one" in caplog.text
