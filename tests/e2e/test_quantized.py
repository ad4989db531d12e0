"""Quantized models answer as Hugging Face does with the weights that the integers stand for."""

import pytest

from tests.quantized import FORMATS
from tests.script import run_script
from tests.tiers import names_to_test, some

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

# One last bit of x can make its integer another one, which is a step of 1/127. With noise of 1e-7 on what Hugging Face
# quantizes, its own log probabilities move by up to 0.06 (seen in 3 of 3 runs).
TOLERANCE = {True: 0.1, False: 1e-4}  # by whether activations are quantized
ON_NPU = (
    "compressed-tensors W8A8",
    "ModelSlim W8A8_DYNAMIC",
    "compressed-tensors W4A16 with zero points",
    "AWQ",
    "GPTQ in order of activations",
)


def run(folder, names, chip=None):
    """The results by format, of a process on the CPU or on a simulated chip."""
    environment = {"ASCEND_SIMULATE": chip} if chip else {}
    rows = run_script("tests.e2e.quantized", str(folder), *names, environment=environment)
    return {row["family"]: row for row in rows}


def assert_same_answers(result):
    assert result["error"] == ""
    assert result["num_tokens"] == 160
    assert result["num_different"] == 0
    assert result["max_logprob_difference"] < TOLERANCE[FORMATS[result["family"]].int8_activations]


@pytest.fixture(scope="module")
def on_cpu(request, tmp_path_factory):
    return run(tmp_path_factory.mktemp("quantized"), names_to_test(request, "name"))


@pytest.mark.parametrize("name", some(FORMATS, "compressed-tensors W8A8", "AWQ"))
def test_the_cpu_answers_as_the_naive_formula(on_cpu, name):
    assert on_cpu[name]["device"].startswith("cpu")
    assert_same_answers(on_cpu[name])


@pytest.fixture(scope="module")
def on_910b(tmp_path_factory):
    return run(tmp_path_factory.mktemp("quantized"), ON_NPU, "910B3")


@pytest.mark.npu
@pytest.mark.claim
@pytest.mark.parametrize("name", ON_NPU)
def test_the_simulated_910b_answers_as_the_naive_formula(on_910b, name):
    assert on_910b[name]["device"] == "npu (simulated 910B3)"
    assert_same_answers(on_910b[name])


@pytest.fixture(scope="module")
def on_310p(tmp_path_factory):
    return run(tmp_path_factory.mktemp("quantized"), ON_NPU, "310P3")


@pytest.mark.npu
@pytest.mark.claim
@pytest.mark.parametrize("name", ON_NPU)
def test_the_simulated_310p_takes_weights_alone_and_refuses_w8a8_by_name(on_310p, name):
    if FORMATS[name].int8_activations:
        assert "W8A8 dynamic is refused on 310P (Atlas 300I Duo)" in on_310p[name]["error"]
    else:
        assert_same_answers(on_310p[name])
