"""Every vision-language family answers as Hugging Face does: pictures, videos and text alone in one batch."""

import pytest

from tests.script import run_script
from tests.tiers import names_to_test, some
from tests.vision_models import VISION_FAMILIES

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def results(request, tmp_path_factory):
    """The families of the tests that run, on the device of this session, in one process."""
    names = names_to_test(request, "name")
    return {row["family"]: row for row in run_script("tests.e2e.vision", str(tmp_path_factory.mktemp("v")), *names)}


def check(result):
    assert result["error"] == "", result
    assert result["num_tokens"] >= 192, result
    assert result["num_different"] == 0, result
    assert result["max_logprob_difference"] < 1e-4, result
    assert result["num_cached_tokens"] > 0, result


@pytest.mark.parametrize("name", some(VISION_FAMILIES, "Qwen2.5-VL"))
def test_on_the_cpu(results, name):
    check(results[name])


@pytest.mark.npu
@pytest.mark.parametrize("name", some(VISION_FAMILIES))
def test_on_the_npu(results, name):
    check(results[name])
