"""Every family of models gives Hugging Face's tokens, or is refused by name before it is loaded."""

import os
from typing import TYPE_CHECKING

import pytest

from tests.models import FAMILIES
from tests.script import run_script
from tests.tiers import names_to_test, some

if TYPE_CHECKING:
    from tests.e2e.families import Result

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

# fp32 sums in another order, through a few layers.
TOLERANCE = 1e-4
CHIP = os.environ.get("ASCEND_SIMULATE")


@pytest.fixture(scope="module")
def results(request, tmp_path_factory) -> dict[str, "Result"]:
    """The families of the tests that run, on the device of this session, in one process."""
    from tests.e2e.families import Result

    names = names_to_test(request, "name")
    rows = [Result(**row) for row in run_script("tests.e2e.families", str(tmp_path_factory.mktemp("families")), *names)]
    return {row.family: row for row in rows}


def check(result: "Result", refused: str | None) -> None:
    if refused is not None:
        assert refused in result.error
        return
    assert result.error == ""
    assert (result.num_different, result.num_tokens) == (0, 160)
    assert result.max_logprob_difference < TOLERANCE
    assert result.num_cached_tokens > 0, "the second time, prompts are found in the prefix cache"


# Of every kind of layers one: experts, latent attention with experts in groups, a sliding window.
@pytest.mark.parametrize("name", some(FAMILIES, "Qwen3-MoE", "DeepSeek-V3", "Gemma 3"))
def test_on_the_cpu(results, name):
    assert results[name].device.startswith("cpu")
    check(results[name], FAMILIES[name].refused.get("cpu"))


@pytest.mark.npu
@pytest.mark.parametrize("name", some(FAMILIES, "Qwen3-MoE", "DeepSeek-V3"))
def test_on_an_npu(results, name):
    if CHIP is None:
        pytest.skip("tokens are compared in fp32, which a real NPU's attention does not take")
    assert results[name].device.startswith(f"npu (simulated {CHIP})")
    check(results[name], FAMILIES[name].refused.get(CHIP))
