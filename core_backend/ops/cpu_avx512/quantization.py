"""W8A8 linear layers, with the weight packed for the kernel."""

import torch
from torch import Tensor

from core_backend.cpu_kernels import build
from core_backend.ops import cpu

PACKED_DIM = 3
LANES = 16  # elements of a vector


def pack_quantized_weight(weight: Tensor) -> Tensor:
    """See core_backend/ops/cpu. It becomes [1, output_size, input_size], of which only the sizes can be read.

    On AMX it stays as it is: torch's own integer product uses the tiles, for which there is no kernel here.
    """
    if weight.shape[1] % LANES or build.uses_amx():
        return cpu.pack_quantized_weight(weight)
    return torch.ops.ascend_cpu.pack_int8_weight.default(weight)


def quantized_linear(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """See core_backend/ops/cpu."""
    if weight.dim() != PACKED_DIM:
        return cpu.quantized_linear(x, weight, weight_scale, bias)
    if x.dtype == torch.float16:  # which the kernel does not read
        return torch.ops.ascend_cpu.int8_linear.default(x.float(), weight, weight_scale, bias).half()
    return torch.ops.ascend_cpu.int8_linear.default(x, weight, weight_scale, bias)
