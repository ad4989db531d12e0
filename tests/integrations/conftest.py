"""The chat model that the tests of both frameworks share, here and behind a server."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from ascend_adapters.config import EngineSettings
from tests import thinking
from tests.adapters import save_adapter
from tests.conftest import CHAT_MODEL, Server, serving

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
def tool_engine(chat_model_folder: Path) -> Iterator[EmbeddedBackend]:
    """The engine of every ChatAscend with SETTINGS."""
    backend = EmbeddedBackend(CHAT_MODEL, **SETTINGS)
    run_sync(backend.info())
    yield backend
    run_sync(backend.close())


@pytest.fixture(scope="session")
def tool_server(chat_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same behind a server."""
    with _serving(CHAT_MODEL, SETTINGS, tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def thinking_server(thinking_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The model of thinking_engine behind a server."""
    with _serving(str(thinking_folder), thinking.SETTINGS, tmp_path_factory) as server:
        yield server


def _serving(
    model: str, settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> AbstractContextManager[Server]:
    options = EngineSettings.from_dict({name: value for name, value in settings.items() if name != "dtype"})
    return serving(model, tmp_path_factory.mktemp("server") / "log", *options.arguments())


@pytest.fixture(scope="session")
def changed_adapter(chat_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the chat model that changes its answers."""
    return save_adapter(chat_model_folder, tmp_path_factory.mktemp("adapter"), seed=1)
