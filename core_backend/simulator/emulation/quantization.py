"""npu_dynamic_quant, npu_quant_matmul."""

from typing import Any

import torch
from torch import Tensor

from core_backend.simulator.emulation.registry import emulates
from core_backend.simulator.emulation.rules import CHIP, half_precision, not_supported, rule

DYNAMIC_QUANT = "op-plugin docs, torch_npu-npu_dynamic_quant"
QUANT_MATMUL = "op-plugin docs, torch_npu-npu_quant_matmul"
MAX_SIZE = 65535


@emulates("npu::npu_dynamic_quant", source=DYNAMIC_QUANT)
def npu_dynamic_quant(
    input: Tensor,
    *,
    smooth_scales: Tensor | None = None,
    group_index: Tensor | None = None,
    dst_type: int | None = None,
    quant_mode: str = "pertoken",
    dst_type_max: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """int8 rows and their scales: largest magnitude / 127. The scale of a row of zeros is not defined."""
    not_supported(DYNAMIC_QUANT, smooth_scales=smooth_scales, group_index=group_index, dst_type=dst_type)
    half_precision(DYNAMIC_QUANT, input=input)
    rule(input.dim() > 1, "more than one dimension", DYNAMIC_QUANT, shape=tuple(input.shape))
    largest = input.float().abs().amax(-1, keepdim=True)
    scale = largest / 127
    quantized = torch.where(largest == 0, 0, torch.round(input.float() / scale)).to(torch.int8)
    return quantized, scale.masked_fill(largest == 0, float("nan")).squeeze(-1)


@emulates("npu::npu_quant_matmul", source=QUANT_MATMUL)
def npu_quant_matmul(
    x1: Tensor,
    x2: Tensor,
    scale: Tensor,
    *,
    offset: Tensor | None = None,
    pertoken_scale: Tensor | None = None,
    bias: Tensor | None = None,
    output_dtype: torch.dtype | int | None = None,
    **others: Any,
) -> Tensor:
    """x1 @ x2 in integers, times scale and pertoken_scale; a float bias is added at the end."""
    not_supported(QUANT_MATMUL, **others, offset=offset)
    rule(x1.dtype == x2.dtype == torch.int8, "x1 and x2 are int8", QUANT_MATMUL, x1=x1.dtype, x2=x2.dtype)
    rule(
        x1.shape[-1] == x2.shape[-2],
        "x1 is [.., m, k] and x2 [.., k, n]",
        QUANT_MATMUL,
        x1=tuple(x1.shape),
        x2=tuple(x2.shape),
    )
    rule(
        0 < x1.shape[-1] <= MAX_SIZE and 0 < x2.shape[-1] <= MAX_SIZE and x1.numel() > 0,
        f"sizes are 1 to {MAX_SIZE}, and nothing is empty",
        QUANT_MATMUL,
        x1=tuple(x1.shape),
        x2=tuple(x2.shape),
    )
    dtype = _dtype_of(output_dtype)
    rule(
        pertoken_scale is not None and pertoken_scale.dtype == torch.float32 and scale.dtype == torch.float32,
        "with scales per token, both scales are float32 here",
        QUANT_MATMUL,
        scale=scale.dtype,
        pertoken_scale=None if pertoken_scale is None else pertoken_scale.dtype,
    )
    assert pertoken_scale is not None
    rule(
        dtype in (torch.bfloat16, torch.float16) or (CHIP.takes_float32 and dtype == torch.float32),
        "with scales per token, output_dtype is bfloat16 or float16",
        QUANT_MATMUL,
        output_dtype=output_dtype,
    )
    rule(
        bias is None or bias.dtype == torch.float32,
        "with scales per token, bias is float32 here",
        QUANT_MATMUL,
        bias=None if bias is None else bias.dtype,
    )
    sums = (
        (x1.long().unsqueeze(-1) * x2.long().unsqueeze(-3)).sum(-2)
        if x1.numel() * x2.shape[-1] < 1 << 20
        else _exact(x1, x2)
    )
    out = sums.float() * scale * pertoken_scale.unsqueeze(-1)
    return (out if bias is None else out + bias).to(dtype)


def _exact(x1: Tensor, x2: Tensor) -> Tensor:
    return (x1.double() @ x2.double()).long()


def _dtype_of(given: torch.dtype | int | None) -> torch.dtype | None:
    """The schema's numbers are those of torch's ScalarType."""
    numbers = {5: torch.float16, 6: torch.float32, 15: torch.bfloat16, 1: torch.int8, 3: torch.int32}
    return numbers.get(given) if isinstance(given, int) else given
