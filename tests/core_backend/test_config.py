import pytest

from core_backend.config import BackendConfig
from core_backend.device import choose_device, num_usable_cores


def test_settings_come_from_the_environment_and_additional_config_wins(monkeypatch):
    monkeypatch.setenv("ASCEND_OP_SET", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert BackendConfig.from_dict({}) == BackendConfig(op_set="cpu", num_threads=3)
    assert BackendConfig.from_dict({"num_threads": 1}).num_threads == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpu_kernels": "torch"}, "cpu_kernels='torch' in --additional-config comes too late.*ASCEND_CPU_KERNELS"),
        ({"op_set": "cpu"}, "op_set='cpu' in --additional-config comes too late.*set .* ASCEND_OP_SET"),
        ({"opset": "cpu"}, r"unknown settings \['opset'\].*knows \['num_threads', 'npu_graphs', 'check_machine', .*\]"),
        ({"num_threads": 0}, "num_threads=0 must be at least 1"),
        ({"npu_graphs": "yes"}, "npu_graphs='yes' must be true or false"),
    ],
)
def test_a_bad_setting_is_named_with_the_remedy(settings, message):
    with pytest.raises(ValueError, match=message):
        BackendConfig.from_dict(settings)


def test_an_unknown_operator_set_is_named(monkeypatch):
    monkeypatch.setenv("ASCEND_OP_SET", "gpu")
    with pytest.raises(ValueError, match="op_set='gpu' is unknown: set ASCEND_OP_SET to one of auto, cpu, npu"):
        BackendConfig.from_environment()


def test_a_bad_environment_variable_is_named(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="OMP_NUM_THREADS='many' is not a number"):
        BackendConfig.from_dict({})


def test_the_device_says_why_it_was_chosen():
    assert str(choose_device(BackendConfig())) == "cpu (no NPU: torch_npu is not installed)"
    assert str(choose_device(BackendConfig(op_set="cpu"))) == "cpu (op_set=cpu was asked for)"


def test_an_npu_that_was_asked_for_is_not_replaced_silently():
    with pytest.raises(RuntimeError, match=r"op_set=npu was asked for.*torch_npu is not installed.*ASCEND_OP_SET"):
        choose_device(BackendConfig(op_set="npu"))


def test_at_least_one_core_is_usable():
    assert num_usable_cores() >= 1
