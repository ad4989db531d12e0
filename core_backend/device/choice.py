"""Which device the engine runs on, and why."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal

from core_backend.config import BackendConfig
from core_backend.hardware import CPU, Hardware


@dataclass(frozen=True)
class Device:
    """The device chosen for this process, its row of the chip table, and the reason a user is told."""

    type: Literal["cpu", "npu"]
    hardware: Hardware
    reason: str  # on an NPU: the chip's name

    @property
    def op_set(self) -> str:
        """The operator set that runs on it."""
        return self.hardware.operator_set

    def __str__(self) -> str:
        return f"{self.type} ({self.reason})"


@cache
def choose_device(config: BackendConfig) -> Device:
    """The NPU if one can be used, else the CPU; what the user asked for is never replaced silently.

    Raises RuntimeError if op_set="npu" was asked for and no NPU can be used, or if the chip is not supported.
    """
    if config.op_set == "cpu":
        return Device("cpu", CPU, "op_set=cpu was asked for")
    missing = _why_no_npu()
    if missing is None:
        from core_backend.device import npu

        return Device("npu", npu.hardware(), npu.name())
    if config.op_set == "npu":
        raise RuntimeError(
            f"op_set=npu was asked for, but there is no NPU to use: {missing}. "
            "`ascend-adapters doctor` looks for the cause; unset ASCEND_OP_SET to run on the CPU."
        )
    return Device("cpu", CPU, f"no NPU: {missing}")


@cache
def current_device() -> Device:
    """The device of this process, by its environment. Raises as choose_device."""
    return choose_device(BackendConfig.from_environment())


def _why_no_npu() -> str | None:
    """Without importing torch_npu where it is not installed: the CPU must not pay for it."""
    import torch  # noqa: F401  (where torch_npu is installed, importing torch brings it in)

    if find_spec("torch_npu") is None:
        return "torch_npu is not installed"
    from core_backend.device import npu

    return npu.why_unavailable()
