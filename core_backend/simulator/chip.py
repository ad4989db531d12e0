"""The simulated chip towards the rest: what it calls itself, and what it takes that the real one does not."""

import os
import sys
from dataclasses import replace

import torch

from core_backend import hardware
from core_backend.simulator.config import SimulatorConfig


def introduce(config: SimulatorConfig) -> None:
    """Name the device "simulated ...", and say so once on standard error of this process."""
    name = f"simulated {config.chip}"
    torch.npu.get_device_name = lambda *args, **kwargs: name
    if config.takes_float32:
        _let_float32_through()
    print(
        f"simulated NPU: process {os.getpid()} runs on a {name}{_FLOAT32 if config.takes_float32 else ''}: right in "
        "meaning, silent about the chip's numerics, slow",
        file=sys.stderr,
        flush=True,
    )


_FLOAT32 = ", taking float32, which the chip's attention does not"


def _let_float32_through() -> None:
    for beginning, row in hardware.CHIPS.items():
        hardware.CHIPS[beginning] = replace(row, dtypes=(*row.dtypes, "float32"))
