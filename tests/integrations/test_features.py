"""Every feature that docs/adapters.md lists holds for our classes; against a server in the slow tier."""

from collections.abc import Iterator

import pytest

from ascend_adapters import ServerBackend
from ascend_adapters.bridge import run_sync
from tests import thinking
from tests.conftest import CHAT_MODEL
from tests.engines import Server
from tests.integrations.conftest import SETTINGS
from tests.integrations.features import on_langchain, on_llama_index
from tests.integrations.features.columns import ascend, chat_ascend
from tests.integrations.features.subject import LORA

pytestmark = [pytest.mark.engine, pytest.mark.claim]

FRAMEWORKS = {"langchain": (chat_ascend, on_langchain.FEATURES), "llama_index": (ascend, on_llama_index.FEATURES)}
CASES = [
    pytest.param(framework, check, id=f"{framework}-{name}")
    for framework, (_, features) in FRAMEWORKS.items()
    for name, check in features.items()
]


@pytest.fixture(scope="module")
def embedded(tool_engine, changed_adapter, thinking_engine, thinking_folder) -> Iterator[tuple]:
    run_sync(tool_engine.load_lora(LORA, str(changed_adapter)))
    yield tool_engine, {"model": CHAT_MODEL, **SETTINGS}, {"model": str(thinking_folder), **thinking.SETTINGS}
    run_sync(tool_engine.unload_lora(LORA))


@pytest.fixture(scope="module")
def remote(tool_server, changed_adapter, thinking_server) -> Iterator[tuple]:
    server = ServerBackend(**_where(tool_server))
    run_sync(server.load_lora(LORA, str(changed_adapter)))
    yield server, {**_where(tool_server), "model": CHAT_MODEL}, _where(thinking_server)
    run_sync(server.unload_lora(LORA))


def _where(server: Server) -> dict[str, str]:
    return {"base_url": server.url, "api_key": server.api_key}


@pytest.mark.parametrize(("framework", "check"), CASES)
@pytest.mark.parametrize("place", ["embedded", pytest.param("remote", marks=pytest.mark.slow)])
def test_it_holds(framework, check, place, request):
    make, _ = FRAMEWORKS[framework]
    check(make(*request.getfixturevalue(place)))
