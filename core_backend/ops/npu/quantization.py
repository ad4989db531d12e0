"""Linear layers with int8 weights (one scale per output) and int8 activations (one scale per token): W8A8 dynamic."""

import torch_npu
from torch import Tensor

from core_backend.ops.npu.linear import FRACTAL_NZ


def quantize_per_token(x: Tensor) -> tuple[Tensor, Tensor]:
    """See ops/cpu. The device does not define the scale of a token of zeros, whose int8 values are zero."""
    quantized, scale = torch_npu.npu_dynamic_quant(x)
    return quantized, scale.nan_to_num_(0.0)


def pack_quantized_weight(weight: Tensor) -> Tensor:
    """See ops/cpu: [input_size, output_size] in FRACTAL_NZ."""
    return torch_npu.npu_format_cast(weight.t().contiguous(), FRACTAL_NZ)


def quantized_linear(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """See ops/cpu."""
    tokens = x.flatten(0, -2)
    if tokens.shape[0] == 0:  # the operator takes nothing empty
        return x.new_empty(*x.shape[:-1], weight.shape[1])
    quantized, scale = quantize_per_token(tokens)
    out = torch_npu.npu_quant_matmul(
        quantized,
        weight,
        weight_scale.float(),
        pertoken_scale=scale,
        bias=None if bias is None else bias.float(),
        output_dtype=x.dtype,
    )
    return out.view(*x.shape[:-1], weight.shape[1])
