"""Every family of models gives Hugging Face's tokens, or is refused by name before it is loaded."""

import json
import os
import subprocess
import sys

import pytest

from tests.e2e.families import Result
from tests.models import FAMILIES

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

# fp32 sums in another order, through a few layers.
TOLERANCE = 1e-4
CHIP = os.environ.get("ASCEND_SIMULATE")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, Result]:
    """All families on the device of this session, in one process."""
    folder = tmp_path_factory.mktemp("families")
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.families", str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [Result(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
    return {row.family: row for row in rows}


def check(result: Result, refused: str | None) -> None:
    if refused is not None:
        assert refused in result.error
        return
    assert result.error == ""
    assert (result.num_different, result.num_tokens) == (0, 160)
    assert result.max_logprob_difference < TOLERANCE
    assert result.num_cached_tokens > 0, "the second time, prompts are found in the prefix cache"


@pytest.mark.parametrize("name", FAMILIES)
def test_on_the_cpu(results, name):
    assert results[name].device.startswith("cpu")
    check(results[name], FAMILIES[name].refused.get("cpu"))


@pytest.mark.npu
@pytest.mark.parametrize("name", FAMILIES)
def test_on_an_npu(results, name):
    if CHIP is None:
        pytest.skip("tokens are compared in fp32, which a real NPU's attention does not take")
    assert results[name].device.startswith(f"npu (simulated {CHIP})")
    check(results[name], FAMILIES[name].refused.get(CHIP))
