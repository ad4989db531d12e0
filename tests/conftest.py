"""Engines and reference models that the whole session shares: each start of an engine takes 20 s."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from tests import thinking

# A hub is never asked for anything: the models come from packages.
os.environ["HF_HUB_OFFLINE"] = "1"

CHAT_MODEL = "smollm2-135m-instruct"
EMBEDDING_MODEL = "all-minilm-l6-v2"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow", action="store_true", help="run the tests that are too slow for every run, and only those"
    )


def pytest_configure(config: pytest.Config) -> None:
    """`pytest -m npu` runs on the NPU of this machine, or else on a simulated one, in this process and its children."""
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
    wanted = [item for item in items if ("slow" in item.keywords) == config.option.slow]
    if unwanted := [item for item in items if item not in wanted]:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = wanted
    # Those of LLaMA-Factory start many engines of their own: before the session has its own, which stay to its end.
    items.sort(key=lambda item: "llamafactory" not in item.path.parts)
    reason = config.stash.get(NO_NPU, "")
    if config.option.markexpr != "npu":
        reason = "these run by themselves: pytest -m npu"
    for item in items:
        if reason and "npu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def chat_model_folder() -> Path:
    return pull(CATALOGUE[CHAT_MODEL], Progress(CHAT_MODEL))


@pytest.fixture(scope="session")
def engine(chat_model_folder: Path) -> Iterator[EmbeddedBackend]:
    """The chat model in fp32, so that tokens can be compared one by one."""
    backend = EmbeddedBackend(CHAT_MODEL, dtype="float32")
    run_sync(backend.info())
    yield backend
    run_sync(backend.close())


@pytest.fixture(scope="session")
def tight_engine(chat_model_folder: Path) -> Iterator[EmbeddedBackend]:
    """The same with steps of 512 tokens and a KV cache of 4,608: one long request, or a few short ones."""
    backend = EmbeddedBackend(
        CHAT_MODEL,
        dtype="float32",
        max_model_len=4224,
        max_num_batched_tokens=512,
        block_size=16,
        num_gpu_blocks_override=288,
    )
    run_sync(backend.info())
    yield backend
    run_sync(backend.close())


@pytest.fixture(scope="session")
def thinking_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return thinking.build_thinking_model(tmp_path_factory.mktemp("thinking") / "model")


@pytest.fixture(scope="session")
def thinking_engine(thinking_folder: Path) -> Iterator[EmbeddedBackend]:
    """A model that is held to thoughts and an answer."""
    backend = EmbeddedBackend(str(thinking_folder), **thinking.SETTINGS)
    yield backend
    run_sync(backend.close())


@pytest.fixture(scope="session")
def seeing_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBackend]:
    """A tiny model that takes pictures and videos, in fp32, so that what it made of a picture can be compared."""
    from tests.vision_models import VISION_FAMILIES

    folder = VISION_FAMILIES["Qwen2-VL"].build(tmp_path_factory.mktemp("vision") / "qwen2-vl")
    backend = EmbeddedBackend(
        str(folder),
        dtype="float32",
        kv_cache_memory_bytes=64 << 20,
        max_num_batched_tokens=256,
        limit_mm_per_prompt={"image": 2, "video": 1},
    )
    run_sync(backend.info())
    yield backend
    run_sync(backend.close())


@dataclass(frozen=True)
class Server:
    """`ascend-adapters serve`, as a user starts it."""

    url: str
    api_key: str
    process: "subprocess.Popen[bytes]"


@pytest.fixture(scope="session")
def server(chat_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The chat model in fp32 behind a server on this machine."""
    with serving(CHAT_MODEL, tmp_path_factory.mktemp("server") / "log", "--max-model-len", "2048") as server:
        yield server


@pytest.fixture(scope="session")
def embedding_model_folder() -> Path:
    return pull(CATALOGUE[EMBEDDING_MODEL], Progress(EMBEDDING_MODEL))


@pytest.fixture(scope="session")
def embedding_engine(embedding_model_folder: Path) -> Iterator[EmbeddedBackend]:
    """The embedding model in fp32."""
    backend = EmbeddedBackend(EMBEDDING_MODEL, dtype="float32")
    run_sync(backend.info())
    yield backend
    run_sync(backend.close())


@pytest.fixture(scope="session")
def embedding_server(embedding_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The embedding model in fp32 behind a server on this machine."""
    with serving(EMBEDDING_MODEL, tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@contextmanager
def serving(model: str, log: Path, *options: str) -> Iterator[Server]:
    """A model in fp32 behind `ascend-adapters serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api_key = secrets.token_hex(8)
    command = [sys.executable, "-m", "ascend_adapters.cli", "serve", model, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--dtype", "float32", *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ASCEND_API_KEY": api_key},
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/health", process, log)
        yield Server(url, api_key, process)
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start:\n{log.read_text()[-3000:]}")
