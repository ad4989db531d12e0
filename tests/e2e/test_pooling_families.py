"""Every pooling family gives what its makers' library gives, on every operator set."""

import os

import pytest

from tests.pooling_models import POOLING_FAMILIES
from tests.script import run_script
from tests.tiers import names_to_test, some

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

# Of every task and kind of model one.
FIRST = ("BERT with a dense layer", "XLM-R cross-encoder", "Qwen3 classifier")
# Largest difference of any number, in fp32.
TOLERANCE = {"embed": 1e-5, "score": 1e-4, "classify": 1e-4}


@pytest.fixture(
    scope="module",
    params=[
        "cpu",
        pytest.param("910B3", marks=pytest.mark.npu),
        pytest.param("310P3", marks=[pytest.mark.npu, pytest.mark.claim]),
    ],
)
def results(request, tmp_path_factory):
    """Chip, and the results of all families there, computed by one process."""
    chip = request.param
    if chip != "cpu" and "ASCEND_SIMULATE" not in os.environ:
        pytest.skip(f"a simulated {chip} is asked for, and there is a real NPU here")
    environment = {} if chip == "cpu" else {"ASCEND_SIMULATE": chip}
    names = names_to_test(request, "name")
    folder = str(tmp_path_factory.mktemp("models"))
    rows = run_script("tests.e2e.pooling_families", folder, *names, environment=environment)
    return chip, {row["family"]: row for row in rows}


@pytest.mark.parametrize("name", some(POOLING_FAMILIES, *FIRST))
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
