"""Which operators a CPU gets."""

import pytest

from core_backend.config import BackendConfig
from core_backend.cpu_kernels import build


@pytest.fixture(scope="module")
def choose():
    # Not at the top, as it imports vLLM.
    from core_backend.ops import table

    # The one that is cached is for the device of this process.
    return table._of_this_cpu


@pytest.mark.skipif(build.why_unavailable() is not None, reason=f"no kernels: {build.why_unavailable()}")
def test_a_cpu_that_has_the_instructions_gets_the_kernels_unless_told_otherwise(choose):
    has_amx = "amx_bf16" in build.cpu_flags()
    assert choose(BackendConfig(cpu_kernels="torch")) == "cpu"
    assert choose(BackendConfig(cpu_kernels="avx512")) == "cpu_avx512"
    assert choose(BackendConfig()) == ("cpu_amx" if has_amx else "cpu_avx512")
    if has_amx:
        assert choose(BackendConfig(cpu_kernels="amx")) == "cpu_amx"
    else:
        with pytest.raises(RuntimeError, match=r"cpu_kernels=amx was asked for, but this CPU.* no AMX"):
            choose(BackendConfig(cpu_kernels="amx"))


def test_another_cpu_does_without_and_says_why_if_they_are_asked_for(choose, monkeypatch):
    monkeypatch.setattr(build, "cpu_flags", lambda: frozenset({"avx2"}))
    assert choose(BackendConfig()) == "cpu"
    with pytest.raises(RuntimeError, match=r"cpu_kernels=avx512 was asked for, but this CPU has no avx512f.*Unset"):
        choose(BackendConfig(cpu_kernels="avx512"))


def test_without_a_compiler_there_are_none(choose, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "cpu_flags", lambda: frozenset(build.CPU_FLAGS))
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("ASCEND_ADAPTERS_CACHE", str(tmp_path))
    assert "no g++ on PATH: install a C++ compiler" in build.why_unavailable()
    assert choose(BackendConfig()) == "cpu"


def test_kernels_that_do_not_compile_are_done_without(choose, monkeypatch):
    def fail():
        raise RuntimeError("the CPU kernels did not compile: error")

    monkeypatch.setattr(build, "cpu_flags", lambda: frozenset(build.CPU_FLAGS))
    monkeypatch.setattr(build, "load", fail)
    assert choose(BackendConfig()) == "cpu"
    with pytest.raises(RuntimeError, match="did not compile"):
        choose(BackendConfig(cpu_kernels="avx512"))
