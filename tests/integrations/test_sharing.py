"""One engine for both frameworks."""

from llama_index.embeddings.ascend import AscendEmbedding
from llama_index.llms.ascend import Ascend

from langchain_ascend import AscendEmbeddings, AscendLLM, ChatAscend

CHAT = {"model": "smollm2-135m-instruct", "max_model_len": 333}
EMBEDDING = {"model": "all-minilm-l6-v2", "max_model_len": 77}


def test_the_same_model_and_settings_are_one_engine():
    engines = {kind(**CHAT)._backend.engine for kind in (ChatAscend, AscendLLM, Ascend)}
    assert len(engines) == 1
    assert engines.isdisjoint({ChatAscend(**{**CHAT, "max_model_len": 334})._backend.engine})
    assert AscendEmbeddings(**EMBEDDING)._backend.engine is AscendEmbedding(**EMBEDDING)._backend.engine
