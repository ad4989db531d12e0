"""A model that vLLM does not know is refused by name when its engine starts."""

import json

import pytest

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import EngineStartError
from tests.models import FAMILIES

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def test_an_unknown_architecture(tmp_path):
    folder = FAMILIES["LLaMA"].build(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchForCausalLM"]}))
    backend = EmbeddedBackend(str(folder), dtype="float32")
    with pytest.raises(EngineStartError, match="NoSuchForCausalLM"):
        run_sync(backend.complete({"prompt": "Hello", "max_tokens": 1}))
