"""What the whole run shares: its tiers, its engines and servers, and the models that are prepared for it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ascend_adapters import EmbeddedBackend
from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from tests.engines import Engines, Server, Servers
from tests.report import Report
from tests.tiers import TIERS, belongs_to

# A hub is never asked for anything: the models come from packages.
os.environ["HF_HUB_OFFLINE"] = "1"

CHAT_MODEL = "smollm2-135m-instruct"
EMBEDDING_MODEL = "all-minilm-l6-v2"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=[*TIERS, "any"], default="test", help="which tests to run (tests/tiers.py)")


def pytest_configure(config: pytest.Config) -> None:
    """`pytest -m npu` runs on the NPU of this machine, or else on a simulated one, in this process and its children."""
    config.pluginmanager.register(Report(), "where-the-time-went")
    if config.option.markexpr != "npu" or list(Path("/dev").glob("davinci[0-9]*")):
        return
    # Before anything imports torch. Tokens are compared in fp32, which the real chips' attention does not take.
    build = subprocess.run([sys.executable, "-m", "core_backend.simulator"], stderr=subprocess.PIPE, text=True)
    if build.returncode == 0:
        os.environ.setdefault("ASCEND_SIMULATE", "910B3")
        os.environ["ASCEND_SIMULATE_FLOAT32"] = "1"
    elif os.environ.get("CI"):
        pytest.exit(f"the simulated NPU cannot be built: {build.stderr}", 1)
    else:
        config.stash[NO_NPU] = f"no NPU, and no simulated one: {build.stderr.strip()}"


NO_NPU = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tier = config.option.tier
    wanted, unwanted = [], []
    for item in items:
        (wanted if tier == "any" or belongs_to(item, tier) else unwanted).append(item)
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = wanted
    # Those of LLaMA-Factory come first: it runs models in this process, and they close what they start.
    items.sort(key=lambda item: "llamafactory" not in item.path.parts)
    reason = config.stash.get(NO_NPU, "")
    if config.option.markexpr != "npu":
        reason = "these run by themselves: pytest -m npu"
    for item in items:
        if reason and "npu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def engine_of() -> Iterator[Engines]:
    """engine_of(model, **settings): the engine of the run with these settings."""
    engines = Engines()
    yield engines
    engines.close(all_of_them=True)


@pytest.fixture(scope="module", autouse=True)
def _close_engines_of_the_module(engine_of: Engines) -> Iterator[None]:
    yield
    engine_of.close()


@pytest.fixture(scope="session")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """server_of(model, **settings): the server of the run with these settings."""
    servers = Servers(tmp_path_factory.mktemp)
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def chat_model_folder() -> Path:
    return pull(CATALOGUE[CHAT_MODEL], Progress(CHAT_MODEL))


@pytest.fixture(scope="session")
def embedding_model_folder() -> Path:
    return pull(CATALOGUE[EMBEDDING_MODEL], Progress(EMBEDDING_MODEL))


@pytest.fixture(scope="session")
def engine(engine_of: Engines) -> EmbeddedBackend:
    """The chat model in fp32, so that tokens can be compared one by one."""
    return engine_of(CHAT_MODEL, keep=True, dtype="float32")


@pytest.fixture(scope="module")
def tight_engine(engine_of: Engines) -> EmbeddedBackend:
    """The same with steps of 512 tokens and a KV cache of 4,608: one long request, or a few short ones."""
    return engine_of(
        CHAT_MODEL,
        dtype="float32",
        max_model_len=4224,
        max_num_batched_tokens=512,
        block_size=16,
        num_gpu_blocks_override=288,
    )


@pytest.fixture(scope="session")
def thinking_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests import thinking

    return thinking.build_thinking_model(tmp_path_factory.mktemp("thinking") / "model")


@pytest.fixture(scope="session")
def thinking_engine(thinking_folder: Path, engine_of: Engines) -> EmbeddedBackend:
    """A model that is held to thoughts and an answer."""
    from tests import thinking

    return engine_of(thinking_folder, keep=True, **thinking.SETTINGS)


@pytest.fixture(scope="session")
def seeing_engine(tmp_path_factory: pytest.TempPathFactory, engine_of: Engines) -> EmbeddedBackend:
    """A tiny model that takes pictures and videos, in fp32, so that what it made of a picture can be compared."""
    from tests.vision_models import VISION_FAMILIES

    folder = VISION_FAMILIES["Qwen2-VL"].build(tmp_path_factory.mktemp("vision") / "qwen2-vl")
    return engine_of(
        folder,
        keep=True,
        dtype="float32",
        kv_cache_memory_bytes=64 << 20,
        max_num_batched_tokens=256,
        limit_mm_per_prompt={"image": 2, "video": 1},
    )


@pytest.fixture(scope="session")
def embedding_engine(engine_of: Engines) -> EmbeddedBackend:
    """The embedding model in fp32."""
    return engine_of(EMBEDDING_MODEL, keep=True, dtype="float32")


@pytest.fixture(scope="session")
def server(server_of: Servers) -> Server:
    """The chat model in fp32 behind a server on this machine."""
    return server_of(CHAT_MODEL, dtype="float32", max_model_len=2048)


@pytest.fixture(scope="session")
def embedding_server(server_of: Servers) -> Server:
    """The embedding model in fp32 behind a server on this machine."""
    return server_of(EMBEDDING_MODEL, dtype="float32")
