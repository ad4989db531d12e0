"""The launcher: one process that imports vLLM for all engines of a program, and what becomes of it and of them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from tests.conftest import EMBEDDING_MODEL
from tests.e2e.test_lifecycle import engines_of, group_of, is_gone
from tests.script import run_script

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

SMALL = {"dtype": "float32", "max_model_len": 64}
TEXT = {"input": "Hello"}
ROOT = Path(__file__).parents[2]


def new_engine(number, **settings):
    """Unlike all others of the run. It is the caller's to close."""
    return EmbeddedBackend(EMBEDDING_MODEL, **{**SMALL, "max_num_seqs": number, **settings})


def launcher_of(backend):
    return psutil.Process(psutil.Process(backend.engine.pid).ppid())


def nothing_is_left_of(owner_pid, seconds=60):
    """Whether its launchers and engines end; a launcher looks for its owner when it has imported vLLM."""
    deadline = time.monotonic() + seconds
    while engines_of(owner_pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    return engines_of(owner_pid) == []


@pytest.fixture
def two_engines():
    backends = [new_engine(1), new_engine(2)]
    for backend in backends:
        run_sync(backend.embed(TEXT))
    yield backends
    for backend in backends:
        run_sync(backend.close())


def test_engines_of_one_program_are_forks_of_one_process_and_share_its_memory(two_engines):
    first, second = two_engines
    assert launcher_of(first) == launcher_of(second)
    assert "ascend_adapters.engine.launcher_child" in launcher_of(first).cmdline()
    held = sum(process.memory_full_info().pss for process in group_of(second.engine.pid))
    assert held - 91e6 < 0.6 * 2**30, "besides MiniLM's weights in fp32, which has no KV cache"


def test_an_engine_that_is_killed_leaves_the_launcher_and_the_other_engine_alone(two_engines):
    first, second = two_engines
    launcher, killed, other = launcher_of(first), first.engine.pid, second.engine.pid
    os.killpg(killed, signal.SIGKILL)
    assert is_gone(killed)
    while first.engine.pid is not None:  # until the launcher has told it: a call before that is told that it died
        time.sleep(0.01)
    assert run_sync(second.embed(TEXT))["data"]
    assert second.engine.pid == other
    assert run_sync(first.embed(TEXT))["data"]
    assert launcher_of(first) == launcher


def test_a_launcher_that_is_killed_leaves_its_engines_alone_and_the_next_engine_gets_another(two_engines):
    first, second = two_engines
    launcher, pid = launcher_of(first), first.engine.pid
    launcher.kill()
    launcher.wait(10)
    assert run_sync(first.embed(TEXT))["data"]
    assert first.engine.pid == pid
    third = new_engine(3)
    try:
        assert run_sync(third.embed(TEXT))["data"]
        assert launcher_of(third) != launcher
        # What has lost its launcher is ended all the same, and is started again by the new one.
        run_sync(second.engine.stop())
        assert second.engine.pid is None
        assert run_sync(second.embed(TEXT))["data"]
        assert launcher_of(second) == launcher_of(third)
    finally:
        run_sync(third.close())


@pytest.mark.claim
def test_twenty_engines_started_and_stopped_in_turn_leave_nothing_behind(two_engines):
    def what_is_there():
        this = psutil.Process()
        return this.num_fds(), len(this.children(recursive=True)), this.num_threads()

    before = what_is_there()
    for number in range(20):
        backend = new_engine(10 + number)
        assert run_sync(backend.embed(TEXT))["data"]
        pid = backend.engine.pid
        run_sync(backend.close())
        assert is_gone(pid)
    assert what_is_there() == before


PROGRAM = """
    import json, os, sys
    from ascend_adapters import EmbeddedBackend
    from ascend_adapters.bridge import run_sync

    backend = EmbeddedBackend("all-minilm-l6-v2", dtype="float32", max_model_len=64)
    vector = run_sync(backend.embed({"input": "Hello"}))["data"][0]["embedding"]
    imported = [name for name in ("torch", "vllm", "transformers") if name in sys.modules]
    print(json.dumps([vector[:4], imported, backend.engine.pid]), flush=True)
    if "wait" in sys.argv:
        sys.stdin.read()
"""


def program(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.claim
def test_two_programs_at_once_have_engines_of_their_own_and_leave_nothing(two_engines):
    """And nothing heavy is imported into them."""
    programs = [program() for _ in range(2)]
    printed = [each.communicate(timeout=200) for each in programs]
    (first, second) = (json.loads(out) for out, _ in printed)
    assert first[0] == second[0] == run_sync(two_engines[0].embed(TEXT))["data"][0]["embedding"][:4]
    assert first[1] == second[1] == []
    assert first[2] != second[2]
    for each in programs:
        assert each.returncode == 0
        assert nothing_is_left_of(each.pid)


@pytest.mark.claim
def test_a_program_that_is_killed_while_vllm_is_imported_leaves_nothing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t")
    owner = program(TMPDIR=str(folder))
    with owner:
        while not engines_of(owner.pid):
            time.sleep(0.05)
        time.sleep(1)
        owner.kill()
    assert nothing_is_left_of(owner.pid)
    assert [path.name for path in folder.glob("ascend-*")] == []


@pytest.mark.claim
def test_a_forked_child_of_the_owner_starts_engines_of_its_own(two_engines):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            backend = new_engine(4)
            run_sync(backend.embed(TEXT))
            os.write(write, f"{launcher_of(backend).pid} {backend.engine.pid}".encode())
            run_sync(backend.close())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    launcher, pid = map(int, os.read(read, 100).split())
    assert launcher != launcher_of(two_engines[0]).pid
    assert is_gone(pid)
    assert nothing_is_left_of(child)
    assert run_sync(two_engines[0].embed(TEXT))["data"]


def test_what_is_forked_has_a_session_an_environment_and_a_secret_of_its_own(tmp_path):
    first, second = (run_script("tests.e2e.forked", variable) for variable in ("ONE", "TWO"))
    assert first[0]["session"] not in (os.getsid(0), second[0]["session"])
    assert first[0]["secret"] != second[0]["secret"]
    assert first[0]["directory"] == str(ROOT)
    assert first[0]["random"] != second[0]["random"]


@pytest.mark.claim
def test_an_engine_whose_environment_differs_comes_from_another_launcher_and_says_which_variable(
    two_engines, monkeypatch, capsys
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    backend = new_engine(5)
    try:
        run_sync(backend.embed(TEXT))
        assert launcher_of(backend) != launcher_of(two_engines[0])
        assert "importing vLLM for another OMP_NUM_THREADS" in capsys.readouterr().err
        (run,) = backend.engine._runs.values()
        assert "operator set: cpu" in run.log
        assert ", 1 threads" in run.log
    finally:
        run_sync(backend.close())


@pytest.mark.claim
def test_where_a_fork_would_lose_threads_an_engine_is_spawned_and_says_why(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    backend = new_engine(6)
    try:
        assert run_sync(backend.embed(TEXT))["data"]
        (run,) = backend.engine._runs.values()
        assert "this engine is not forked from the launcher: importing vLLM has started 1 threads here" in run.log
        pid = backend.engine.pid
    finally:
        run_sync(backend.close())
    assert is_gone(pid)


@pytest.mark.claim
def test_a_vllm_that_cannot_be_imported_is_one_clear_error_each_time(tmp_path, monkeypatch):
    (tmp_path / "vllm.py").write_text("raise ImportError('this vLLM is broken')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for number in (7, 8):
        backend = new_engine(number)
        with pytest.raises(Exception, match="vLLM cannot be imported: this vLLM is broken"):
            run_sync(backend.embed(TEXT))


@pytest.mark.claim
def test_nothing_that_is_left_out_is_missed(engine, seeing_engine, embedding_engine, thinking_engine):
    """Every kind of model answers, and none of its processes has loaded what imports.py leaves out."""
    hello = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    for backend in (engine, seeing_engine, thinking_engine):
        assert run_sync(backend.chat(hello))["choices"]
    assert run_sync(embedding_engine.embed(TEXT))["data"]
    for backend in (engine, seeing_engine, embedding_engine, thinking_engine):
        for process in group_of(backend.engine.pid):
            libraries = {Path(each.path).parts for each in process.memory_maps(grouped=True)}
            loaded = {part for parts in libraries for part in parts}
            assert not loaded & {"sklearn", "pandas", "pyarrow"}
