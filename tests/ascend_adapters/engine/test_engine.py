"""What is read from an engine's log. The samples are from real logs."""

import pytest

from ascend_adapters.engine.engine import _current_step, _device_in
from ascend_adapters.engine.run import failure_reason

CORE_FAILED = """\
(EngineCore pid=71) ERROR 11-23 07:09:54 [core.py:1165] Traceback (most recent call last):
(EngineCore pid=71) ERROR 11-23 07:09:54 [core.py:1165] ValueError: not enough memory for the KV cache: 9 GiB wanted
(APIServer pid=70) Traceback (most recent call last):
(APIServer pid=70) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
BAD_CONFIG = """\
(APIServer pid=70)     s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)
(APIServer pid=70) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
(APIServer pid=70)   Value error, The model type `x` is unknown [type=value_error, input_value=..., input_type=Args]
"""


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (CORE_FAILED, "not enough memory for the KV cache: 9 GiB wanted"),
        (BAD_CONFIG, "The model type `x` is unknown"),
        ("OSError: [Errno 28] No space left on device\n", "[Errno 28] No space left on device"),
        (
            "vllm serve: error: argument --dtype: invalid choice: 'float23'\n",
            "argument --dtype: invalid choice: 'float23'",
        ),
        ("Killed\n", "its log gives no reason"),
    ],
)
def test_the_cause_is_found_in_the_log(log, reason):
    assert failure_reason(log) == reason


def test_the_log_tells_how_far_the_start_is():
    assert _current_step("") == "starting the server"
    assert _current_step("INFO Resolved architecture: X\nINFO Starting to load model /m...") == "loading weights"


def test_the_log_tells_the_device():
    line = "INFO [worker.py:44] device: cpu (no NPU: torch_npu is not installed), operator set: cpu, 2 threads"
    assert _device_in(line) == "cpu (no NPU: torch_npu is not installed), operator set cpu"
