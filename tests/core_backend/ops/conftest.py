"""The sets of operators that run on a CPU, each of which the tests hold to the same formulas."""

from importlib import import_module

import pytest


@pytest.fixture(params=["cpu", "cpu_avx512", "cpu_amx"])
def ops(request):
    """A set of operators for CPUs."""
    # Not at the top: this file is read before tests/conftest.py has settled which device torch is imported for.
    from core_backend.cpu_kernels import build

    if request.param == "cpu":
        yield import_module("core_backend.ops.cpu")
        return
    if (reason := build.why_unavailable()) is not None:
        pytest.skip(f"no kernels: {reason}")
    kernels = import_module("core_backend.ops.cpu_avx512")
    if build.allow_amx(request.param == "cpu_amx") != (request.param == "cpu_amx"):
        pytest.skip("this CPU has no AMX")
    yield kernels
    build.allow_amx(True)
