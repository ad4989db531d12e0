"""npu_swiglu, npu_geglu."""

import torch.nn.functional as F
from torch import Tensor

from core_backend.simulator.emulation.registry import emulates
from core_backend.simulator.emulation.rules import ALL, contiguous, floating, rule

SWIGLU = "op-plugin docs, torch_npu-npu_swiglu"
GEGLU = "CANN ops-nn, activation/ge_glu_v2"


@emulates("npu::npu_swiglu", source=SWIGLU, families=ALL)
def npu_swiglu(input: Tensor, dim: int = -1) -> Tensor:
    """silu of the first half times the second."""
    floating(SWIGLU, input=input)
    contiguous(SWIGLU, input=input)
    rule(input.numel() > 0, "not empty", SWIGLU, shape=tuple(input.shape))
    rule(input.shape[dim] % 2 == 0, "the dimension that is halved is even", SWIGLU, shape=tuple(input.shape), dim=dim)
    first, second = input.float().chunk(2, dim)
    return (F.silu(first) * second).to(input.dtype)


@emulates("npu::npu_geglu", source=GEGLU, families=ALL)
def npu_geglu(input: Tensor, dim: int = -1, approximate: int = 1, activate_left: bool = False) -> tuple[Tensor, Tensor]:
    """gelu of one half times the other; by default the second half is activated."""
    floating(GEGLU, input=input)
    rule(approximate in (0, 1), "approximate is 0 (erf) or 1 (tanh)", GEGLU, approximate=approximate)
    rule(input.shape[dim] % 2 == 0, "the dimension that is halved is even", GEGLU, shape=tuple(input.shape), dim=dim)
    first, second = input.float().chunk(2, dim)
    activated, other = (first, second) if activate_left else (second, first)
    gelu = F.gelu(activated, approximate="tanh" if approximate else "none")
    return (gelu * other).to(input.dtype), gelu.to(input.dtype)
