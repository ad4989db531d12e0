"""A reasoning parser of vLLM's splits what a model thinks from what it says, whole and streamed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import iterate_sync, run_sync
from tests.models import FAMILIES

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

MARKS = {260: "<think>", 261: "</think>"}  # after the tokenizer's own 260 tokens
# The model has random weights: a grammar makes it think and answer, and a bias makes it mark up its thoughts by the
# tokens that are there for it, not letter by letter.
BODY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "structured_outputs": {"regex": "<think>(two|one) steps</think>(Paris|Lyon)"},
    "logit_bias": {str(token): 100 for token in MARKS},
    "temperature": 0,
    "max_tokens": 60,
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Iterator[EmbeddedBackend]:
    folder: Path = FAMILIES["Qwen3"].build(tmp_path_factory.mktemp("thinking") / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(MARKS.values()))
    assert tokenizer.convert_ids_to_tokens(list(MARKS)) == list(MARKS.values())
    tokenizer.save_pretrained(folder)
    backend = EmbeddedBackend(
        str(folder),
        dtype="float32",
        reasoning_parser="qwen3",
        structured_outputs_config={"backend": "xgrammar", "enable_in_reasoning": True},
    )
    yield backend
    run_sync(backend.close())


def test_thoughts_come_in_a_field_of_their_own(engine):
    message = run_sync(engine.chat(BODY))["choices"][0]["message"]
    assert message["reasoning"] in ("two steps", "one steps")
    assert message["content"] in ("Paris", "Lyon")


def test_streamed_thoughts_and_words_are_those_of_the_whole_answer(engine):
    whole = run_sync(engine.chat(BODY))["choices"][0]["message"]
    deltas = [chunk["choices"][0]["delta"] for chunk in iterate_sync(engine.chat_stream(BODY)) if chunk["choices"]]
    for field in ("reasoning", "content"):
        assert "".join(delta.get(field) or "" for delta in deltas) == whole[field]


def test_the_engine_says_which_parser_it_has(engine):
    assert run_sync(engine.info()).reasoning_parser == "qwen3"
