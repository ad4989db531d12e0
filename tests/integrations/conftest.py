"""The chat model that the tests of both frameworks share, here and behind a server."""

from pathlib import Path

import pytest

from ascend_adapters import EmbeddedBackend
from tests import thinking
from tests.adapters import save_adapter
from tests.conftest import CHAT_MODEL
from tests.engines import Engines, Server, Servers

# SmolLM2 has a chat template without tools.
TEMPLATE = Path(__file__).parent / "tools_template.jinja"
SETTINGS = {
    "dtype": "float32",
    "max_model_len": 4096,
    "chat_template": str(TEMPLATE),
    # A small model would fill its JSON with blanks.
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    "enable_lora": True,
}


@pytest.fixture(scope="session")
def tool_engine(engine_of: Engines) -> EmbeddedBackend:
    """The engine of every ChatAscend with SETTINGS."""
    return engine_of(CHAT_MODEL, keep=True, **SETTINGS)


@pytest.fixture(scope="session")
def tool_server(server_of: Servers) -> Server:
    """The same behind a server."""
    return server_of(CHAT_MODEL, **SETTINGS)


@pytest.fixture(scope="session")
def thinking_server(thinking_folder: Path, server_of: Servers) -> Server:
    """The model of thinking_engine behind a server."""
    return server_of(thinking_folder, **thinking.SETTINGS)


@pytest.fixture(scope="session")
def changed_adapter(chat_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the chat model that changes its answers."""
    return save_adapter(chat_model_folder, tmp_path_factory.mktemp("adapter"), seed=1)
