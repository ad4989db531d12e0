"""A reasoning parser of vLLM's splits what a model thinks from what it says, whole and streamed."""

from typing import Any

import pytest

from ascend_adapters.bridge import iterate_sync, run_sync
from tests.thinking import ANSWERS, FIELDS, MAX_TOKENS, THOUGHTS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

BODY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    **FIELDS,
    "temperature": 0,
    "max_tokens": MAX_TOKENS,
}


def test_thoughts_come_in_a_field_of_their_own(thinking_engine):
    message = run_sync(thinking_engine.chat(BODY))["choices"][0]["message"]
    assert message["reasoning"] in THOUGHTS
    assert message["content"] in ANSWERS


def test_streamed_thoughts_and_words_are_those_of_the_whole_answer(thinking_engine):
    whole = run_sync(thinking_engine.chat(BODY))["choices"][0]["message"]
    deltas = [
        chunk["choices"][0]["delta"] for chunk in iterate_sync(thinking_engine.chat_stream(BODY)) if chunk["choices"]
    ]
    for field in ("reasoning", "content"):
        assert "".join(delta.get(field) or "" for delta in deltas) == whole[field]


def test_the_engine_says_which_parser_it_has(thinking_engine):
    assert run_sync(thinking_engine.info()).reasoning_parser == "qwen3"
