"""Which device the engine runs on, and why. The only module besides ops/npu that may touch torch_npu."""

import math
import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal

from core_backend import cgroup
from core_backend.config import BackendConfig


@dataclass(frozen=True, slots=True)
class Device:
    """The device and operator set chosen for this process, with the reason a user is told."""

    type: Literal["cpu", "npu"]
    op_set: Literal["cpu", "npu"]
    reason: str

    def __str__(self) -> str:
        return f"{self.type} ({self.reason})"


@cache
def choose_device(config: BackendConfig) -> Device:
    """The NPU if one can be used, else the CPU; what the user asked for is never replaced silently.

    Raises RuntimeError if op_set="npu" was asked for and no NPU can be used.
    """
    if config.op_set == "cpu":
        return Device("cpu", "cpu", "op_set=cpu was asked for")
    missing = _why_no_npu()
    if config.op_set == "npu":
        raise RuntimeError(
            f"op_set=npu was asked for, but there is no NPU to use: {missing}. "
            "Unset ASCEND_OP_SET to run on the CPU operator set."
        )
    return Device("cpu", "cpu", f"no NPU: {missing}")


def _why_no_npu() -> str:
    if find_spec("torch_npu") is None:
        return "torch_npu is not installed"
    return "torch_npu is installed, but this version has no npu operator set yet"


def num_threads(config: BackendConfig, num_local_ranks: int) -> int:
    """Compute threads of one rank: what was asked for, else its share of the usable cores."""
    return config.num_threads or max(1, num_usable_cores() // num_local_ranks)


def num_usable_cores() -> int:
    """CPU cores this process may use: its affinity, or its control group's quota if that is smaller."""
    cores = len(os.sched_getaffinity(0))
    quota = cgroup.cpu_quota()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))
