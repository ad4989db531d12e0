"""Prompts of token ids that the model has no embeddings for: refused, where they would end the engine core."""

import json

import pytest

from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import RequestError

pytestmark = pytest.mark.engine


def test_the_models_last_token_is_the_last_that_is_taken(engine, chat_model_folder):
    size = json.loads((chat_model_folder / "config.json").read_text())["vocab_size"]
    assert run_sync(engine.complete({"prompt": [size - 1], "max_tokens": 1}))["usage"]["prompt_tokens"] == 1
    for wrong, message in ((size, rf"token id {size} .*: the model has the ids 0 to {size - 1}"), (-1, "equal to 0")):
        with pytest.raises(RequestError, match=message):
            run_sync(engine.complete({"prompt": [1, wrong], "max_tokens": 1}))
    assert run_sync(engine.complete({"prompt": [size - 1], "max_tokens": 1}))["usage"]["prompt_tokens"] == 1
