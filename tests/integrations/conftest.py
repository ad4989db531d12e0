"""The chat model that the tests of both frameworks share, here and behind a server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from tests.conftest import CHAT_MODEL, Server, serving

# SmolLM2 has a chat template without tools.
TEMPLATE = Path(__file__).parent / "tools_template.jinja"
SETTINGS = {
    "dtype": "float32",
    "max_model_len": 4096,
    "chat_template": str(TEMPLATE),
    # A small model would fill its JSON with blanks.
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
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
    with serving(
        CHAT_MODEL,
        tmp_path_factory.mktemp("server") / "log",
        *("--max-model-len", "4096", "--chat-template", str(TEMPLATE)),
        *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
    ) as server:
        yield server
