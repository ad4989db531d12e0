"""An embedded engine from its start to its end, however either comes about."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import EngineDiedError, EngineStartError

pytestmark = pytest.mark.engine

SMALL = {"max_model_len": 1024, "kv_cache_memory_bytes": 128 << 20}
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
ENDLESS = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 900, "ignore_eos": True}

SCRIPT = """
    from langchain_ascend import ChatAscend

    model = ChatAscend(model="smollm2-135m-instruct", max_tokens=8, temperature=0, max_model_len=1024)
    print(model.invoke("What is the capital of France?").content)
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


def test_a_plain_script_without_a_main_guard_gets_its_answer_and_leaves_nothing_running():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, timeout=200, check=True
    )
    *answer, engine_pid = done.stdout.splitlines()
    assert "Paris" in " ".join(answer)
    assert "engine: ready on device: cpu (no NPU: torch_npu is not installed)" in done.stderr
    assert is_gone(int(engine_pid))


def test_the_engine_is_gone_when_its_owner_is_killed(tmp_path):
    script = textwrap.dedent(SCRIPT) + "import time; time.sleep(600)"
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    with owner:
        owner.stdout.readline()
        engine_pid = int(owner.stdout.readline())
        assert len(group_of(engine_pid)) >= 2
        owner.kill()
    assert is_gone(engine_pid)
    assert list(tmp_path.glob("ascend-engine-*")) == []


def test_a_notebook_works():
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(textwrap.dedent(SCRIPT)),
            nbformat.v4.new_code_cell('print((await model.ainvoke("What is the capital of Germany?")).content)'),
        ]
    )
    NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    printed = ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]
    assert "Paris" in printed[0]
    assert "Berlin" in printed[1]


@pytest.fixture(scope="module")
def small_engine(chat_model_folder):
    backend = EmbeddedBackend("smollm2-135m-instruct", **SMALL)
    run_sync(backend.info())
    yield backend
    run_sync(backend.close())


def test_the_weights_are_held_once(small_engine):
    """In fp32 they take 269 MB more than in bf16. Held twice, it would be twice that."""
    larger = EmbeddedBackend("smollm2-135m-instruct", dtype="float32", **SMALL)
    try:
        for backend in (small_engine, larger):
            run_sync(backend.chat(HELLO))
        difference = private_bytes(larger.engine.pid) - private_bytes(small_engine.engine.pid)
    finally:
        run_sync(larger.close())
    assert 200e6 < difference < 400e6


@pytest.mark.parametrize("victim", ["server", "core"])
def test_when_the_engine_is_killed_waiting_requests_say_so_and_the_next_call_starts_a_new_one(small_engine, victim):
    run_sync(small_engine.chat(HELLO))
    pid = small_engine.engine.pid
    target = pid if victim == "server" else _core_of(pid).pid

    async def wait_for_answers():
        calls = [asyncio.create_task(small_engine.chat(ENDLESS)) for _ in range(3)]
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


def _core_of(pid):
    return max(psutil.Process(pid).children(), key=lambda process: process.memory_info().rss)


def test_backends_of_the_same_model_and_settings_share_an_engine(small_engine):
    same = EmbeddedBackend("smollm2-135m-instruct", **SMALL)
    other = EmbeddedBackend("smollm2-135m-instruct", max_model_len=512)
    assert same.engine is small_engine.engine
    assert other.engine is not small_engine.engine
    run_sync(same.close())
    assert small_engine.engine.is_alive()


def test_a_forked_child_can_use_the_engine_and_does_not_end_it(small_engine):
    run_sync(small_engine.chat(HELLO))
    child = os.fork()
    if child == 0:
        tokens = run_sync(small_engine.chat(HELLO))["usage"]["completion_tokens"]
        small_engine.engine.stop()
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
    log = Path(str(failure.value).rpartition("its log: ")[2].rstrip(")"))
    assert "Traceback" in log.read_text()
    log.unlink()
