"""The sets of operators that run on a CPU, each of which the tests hold to the same formulas."""

from importlib import import_module

import pytest

from core_backend.cpu_kernels import build


@pytest.fixture(params=["cpu", "cpu_avx512"])
def ops(request):
    """A set of operators for CPUs."""
    if request.param == "cpu_avx512" and (reason := build.why_unavailable()) is not None:
        pytest.skip(f"no kernels: {reason}")
    return import_module(f"core_backend.ops.{request.param}")
