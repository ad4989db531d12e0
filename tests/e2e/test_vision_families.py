"""Every vision-language family answers as Hugging Face does: pictures, videos and text alone in one batch."""

import json
import os
import subprocess
import sys

import pytest

from tests.vision_models import VISION_FAMILIES


def compared(folder) -> list[dict]:
    """In a process of its own, on the device that this one's environment chooses."""
    command = [sys.executable, "-m", "tests.e2e.vision", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"})
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"family"')]
    assert len(results) == len(VISION_FAMILIES), done.stderr[-3000:]
    return results


def check(results):
    for result in results:
        assert result["error"] == "", result
        assert result["num_tokens"] >= 192, result
        assert result["num_different"] == 0, result
        assert result["max_logprob_difference"] < 1e-4, result
        assert result["num_cached_tokens"] > 0, result


@pytest.mark.engine
def test_on_the_cpu(tmp_path):
    check(compared(tmp_path))


@pytest.mark.npu
def test_on_the_npu(tmp_path):
    check(compared(tmp_path))
