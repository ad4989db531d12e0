"""The plain model and two adapters, mixed in one batch with pictures: each request gets what it gets alone."""

import os

import pytest

from tests.script import run_script

pytestmark = [pytest.mark.engine, pytest.mark.claim, pytest.mark.timeout(600)]


def check(tmp_path, device: str) -> None:
    (result,) = run_script("tests.e2e.vision_lora", str(tmp_path))
    assert result["device"].startswith(device)
    assert (result["num_requests"], result["num_with_pictures"]) == (24, 21)
    assert result["num_prompts_answered_in_three_ways"] == 8, "the adapters make a difference"
    assert result["num_different_from_peft"] == 0
    assert result["num_different_when_alone"] == 0


def test_on_the_cpu(tmp_path):
    check(tmp_path, "cpu")


@pytest.mark.npu
@pytest.mark.skipif("ASCEND_SIMULATE" not in os.environ, reason="a real NPU's attention does not take fp32")
def test_on_an_npu(tmp_path):
    check(tmp_path, "npu")
