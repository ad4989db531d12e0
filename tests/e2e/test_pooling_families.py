"""Every pooling family gives what its makers' library gives, on every operator set."""

import json
import os
import subprocess
import sys

import pytest

from tests.pooling_models import POOLING_FAMILIES

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

# Largest difference of any number, in fp32.
TOLERANCE = {"embed": 1e-5, "score": 1e-4, "classify": 1e-4}


@pytest.fixture(
    scope="module",
    params=["cpu", pytest.param("910B3", marks=pytest.mark.npu), pytest.param("310P3", marks=pytest.mark.npu)],
)
def results(request, tmp_path_factory):
    """Chip, and the results of all families there, computed by one process."""
    chip = request.param
    environment = {name: value for name, value in os.environ.items() if name != "ASCEND_SIMULATE"}
    if chip == "cpu":
        environment["ASCEND_OP_SET"] = "cpu"
    elif "ASCEND_SIMULATE" not in os.environ:
        pytest.skip(f"a simulated {chip} is asked for, and there is a real NPU here")
    else:
        environment["ASCEND_SIMULATE"] = chip
    command = [sys.executable, "-m", "tests.e2e.pooling_families", str(tmp_path_factory.mktemp("models"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return chip, {line["family"]: line for line in lines}


@pytest.mark.parametrize("name", POOLING_FAMILIES)
def test_the_numbers_are_those_of_its_makers_library(results, name):
    chip, results_of = results
    family, result = POOLING_FAMILIES[name], results_of[name]
    assert result["device"].startswith("cpu" if chip == "cpu" else "npu")
    if chip in family.refused:
        assert family.refused[chip] in result["error"]
        return
    assert result["error"] == ""
    assert result["num_texts"] == 10
    assert result["max_difference"] < TOLERANCE[family.task]
