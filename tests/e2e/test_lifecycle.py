"""An embedded engine from its start to its end, however either comes about."""

import asyncio
import gc
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import EngineDiedError, EngineStartError

pytestmark = pytest.mark.engine

SMALL = {"max_model_len": 1024, "kv_cache_memory_bytes": 128 << 20}
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "ignore_eos": True}
ENDLESS = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 900, "ignore_eos": True}

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "langchain_chat.py")
SCRIPT = """
    from langchain_ascend import ChatAscend

    model = ChatAscend(model="smollm2-135m-instruct", max_tokens=8, temperature=0, max_model_len=1024)
    print(model.invoke("What is the capital of Japan?").content)
    print(model._backend.engine.pid, flush=True)
"""


def group_of(pid):
    """The processes of the process group `pid`."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members


def is_gone(pid, seconds=5.0):
    deadline = time.monotonic() + seconds
    while group_of(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not group_of(pid)


def private_bytes(pid):
    """Memory that only the processes of the group `pid` hold."""
    return sum(process.memory_full_info().uss for process in group_of(pid))


def engines_of(owner_pid):
    """Engines of the process `owner_pid`, and its launchers."""
    marks = (f"ascend_adapters.engine.serve owner={owner_pid} ", f"ascend_adapters.engine.launcher_child {owner_pid} ")
    running = [(process, " ".join(process.info["cmdline"] or [])) for process in psutil.process_iter(["cmdline"])]
    return [process for process, command in running if any(mark in command for mark in marks)]


def test_the_example_a_plain_script_without_a_main_guard_answers_and_leaves_nothing_running():
    with subprocess.Popen(
        [sys.executable, EXAMPLE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as script:
        printed, progress = script.communicate(timeout=200)
    assert script.returncode == 0, progress
    assert "device: cpu (no NPU: torch_npu is not installed), operator set cpu" in printed
    assert "The capital of Japan is Tokyo." in printed
    assert re.search(r"time to first token: \d+ ms", printed)
    assert re.search(r"16 answers, \d+ tokens in .* tokens/s", printed)
    assert "engine: importing vLLM ..." in progress
    assert engines_of(script.pid) == []


@pytest.mark.claim
def test_a_script_that_ends_in_the_middle_of_a_stream_ends(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(SCRIPT) + 'stream = model.stream("Count to one hundred."); print(next(stream).content)'
    )
    subprocess.run([sys.executable, str(script)], capture_output=True, check=True, timeout=120)


@pytest.fixture
def short_tmp_path():
    """pytest's own is too long a path for a unix socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_the_engine_is_gone_when_its_owner_is_killed(short_tmp_path):
    script = textwrap.dedent(SCRIPT) + "import time; time.sleep(600)"
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(short_tmp_path)},
    )
    with owner:
        owner.stdout.readline()
        engine_pid = int(owner.stdout.readline())
        assert len(group_of(engine_pid)) >= 2
        owner.kill()
    assert is_gone(engine_pid)
    assert list(short_tmp_path.glob("ascend-engine-*")) == []


@pytest.mark.claim
def test_a_notebook_works():
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(textwrap.dedent(SCRIPT)),
            nbformat.v4.new_code_cell('print((await model.ainvoke("What is the capital of Germany?")).content)'),
        ]
    )
    NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    printed = ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]
    assert "Tokyo" in printed[0]
    assert "Berlin" in printed[1]


@pytest.fixture(scope="module")
def small_engine(chat_model_folder):
    backend = EmbeddedBackend("smollm2-135m-instruct", **SMALL)
    run_sync(backend.info())
    yield backend
    run_sync(backend.close())


def test_the_weights_are_held_once(small_engine):
    """In fp32 they take 269 MB more than in bf16. Held twice, it would be twice that, or nothing.

    The kernels for bf16 hold the output layer, 57 MB, a second time: it is the embeddings', too.
    """
    larger = EmbeddedBackend("smollm2-135m-instruct", dtype="float32", **SMALL)
    try:
        for backend in (small_engine, larger):
            run_sync(backend.chat(HELLO))
        difference = private_bytes(larger.engine.pid) - private_bytes(small_engine.engine.pid)
    finally:
        run_sync(larger.close())
    assert 120e6 < difference < 400e6


@pytest.mark.parametrize("victim", ["server", "core"])
def test_when_the_engine_is_killed_waiting_requests_say_so_and_the_next_call_starts_a_new_one(small_engine, victim):
    run_sync(small_engine.chat(HELLO))
    pid = small_engine.engine.pid
    target = pid if victim == "server" else _core_of(pid).pid

    async def wait_for_answers():
        calls = [asyncio.create_task(small_engine.chat(ENDLESS)) for _ in range(8)]
        calls.append(asyncio.create_task(read_all(small_engine.chat_stream(ENDLESS))))
        await asyncio.sleep(1)
        os.kill(target, signal.SIGKILL)
        killed = time.monotonic()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        return outcomes, time.monotonic() - killed

    outcomes, seconds = run_sync(wait_for_answers())
    assert seconds < 5
    assert all(isinstance(outcome, EngineDiedError) for outcome in outcomes), outcomes
    assert "the next call starts a new one" in str(outcomes[0])
    assert run_sync(small_engine.chat(HELLO))["usage"]["completion_tokens"] == 4
    assert is_gone(pid)
    assert small_engine.engine.pid != pid


async def read_all(stream):
    return [chunk async for chunk in stream]


def test_64_callers_that_try_again_at_once_share_one_new_engine(small_engine):
    """A late diagnosis of the old engine must not touch the new one."""
    run_sync(small_engine.chat(HELLO))

    async def call_and_try_again():
        try:
            return await small_engine.chat({**HELLO, "max_tokens": 200})
        except EngineDiedError:
            return await small_engine.chat(HELLO)

    async def all_at_once():
        calls = [asyncio.create_task(call_and_try_again()) for _ in range(64)]
        await asyncio.sleep(1)
        os.kill(small_engine.engine.pid, signal.SIGKILL)
        return await asyncio.gather(*calls)

    num_runs = len(small_engine.engine._runs)
    answers = run_sync(all_at_once())
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [4] * 64
    assert len(small_engine.engine._runs) == num_runs + 1


def test_an_engine_outlives_its_backend_until_it_is_closed(small_engine):
    """A program may make a new model object for every call."""
    run_sync(small_engine.info())
    pid = small_engine.engine.pid
    another = EmbeddedBackend("smollm2-135m-instruct", **SMALL)
    del another
    gc.collect()
    assert small_engine.engine.pid == pid
    assert EmbeddedBackend("smollm2-135m-instruct", **SMALL).engine.pid == pid


async def test_an_engine_can_be_closed_while_it_starts():
    backend = EmbeddedBackend("smollm2-135m-instruct", **{**SMALL, "max_model_len": 256})
    call = asyncio.create_task(backend.chat(HELLO))
    while backend.engine.pid is None:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    pid = backend.engine.pid
    await backend.close()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(is_gone, pid)


def _core_of(pid):
    return max(psutil.Process(pid).children(), key=lambda process: process.memory_info().rss)


def test_backends_of_the_same_model_and_settings_share_an_engine(small_engine):
    same = EmbeddedBackend("smollm2-135m-instruct", **SMALL)
    other = EmbeddedBackend("smollm2-135m-instruct", max_model_len=512)
    assert same.engine is small_engine.engine
    assert other.engine is not small_engine.engine
    run_sync(same.close())
    assert small_engine.engine.pid is not None


def test_a_forked_child_can_use_the_engine_and_does_not_end_it(small_engine):
    run_sync(small_engine.chat(HELLO))
    child = os.fork()
    if child == 0:
        tokens = 0
        try:
            tokens = run_sync(small_engine.chat(HELLO))["usage"]["completion_tokens"]
            run_sync(small_engine.engine.stop())
        finally:
            os._exit(tokens)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    assert run_sync(small_engine.chat(HELLO))["usage"]["completion_tokens"] == 4


def test_a_second_model_that_does_not_fit_is_refused_with_the_numbers(small_engine):
    hungry = EmbeddedBackend("smollm2-135m-instruct", max_model_len=1024, kv_cache_memory_bytes=1 << 44)
    with pytest.raises(EngineStartError, match=r"not enough memory for the KV cache: 16384\.00 GiB wanted, .* free"):
        run_sync(hungry.chat(HELLO))
    assert run_sync(small_engine.chat(HELLO))["usage"]["completion_tokens"] == 4


def test_a_folder_whose_model_vllm_does_not_know_fails_with_the_reason_of_its_log(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["Nonsense"], "model_type": "nonsense"}')
    with pytest.raises(EngineStartError, match=r"nonsense") as failure:
        run_sync(EmbeddedBackend(str(tmp_path)).chat(HELLO))
    log = Path(re.search(r"its log: (\S+)\)", str(failure.value))[1])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_a_user_who_wants_no_log_of_vllm_still_sees_the_device(monkeypatch):
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    quiet = EmbeddedBackend("smollm2-135m-instruct", **{**SMALL, "max_model_len": 192})
    try:
        run_sync(quiet.chat(HELLO))
        assert quiet.engine.device.startswith("cpu")
    finally:
        run_sync(quiet.close())


def test_a_start_that_takes_too_long_says_so_and_keeps_its_log(monkeypatch):
    monkeypatch.setattr("ascend_adapters.engine.engine.START_TIMEOUT", 1.0)
    slow = EmbeddedBackend("smollm2-135m-instruct", **{**SMALL, "max_model_len": 128})
    with pytest.raises(EngineStartError, match="was not ready after 1 s") as failure:
        run_sync(slow.chat(HELLO))
    log = Path(re.search(r"its log: (\S+)\)", str(failure.value))[1])
    assert log.read_text().startswith("vllm serve ")
    assert slow.engine.pid is None
    log.unlink()
