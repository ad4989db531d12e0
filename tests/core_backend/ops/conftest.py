"""The sets of operators that run on a CPU, each of which the tests hold to the same formulas."""

from importlib import import_module

import pytest


@pytest.fixture(params=["cpu", "cpu_avx512"])
def ops(request):
    """A set of operators for CPUs."""
    # Not at the top: this file is read before tests/conftest.py has settled which device torch is imported for.
    from core_backend.cpu_kernels import build

    if request.param == "cpu_avx512" and (reason := build.why_unavailable()) is not None:
        pytest.skip(f"no kernels: {reason}")
    return import_module(f"core_backend.ops.{request.param}")
