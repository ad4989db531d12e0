"""Linear layers with int8 weights (one scale per output) and int8 activations (one scale per token): W8A8 dynamic."""

import torch
from torch import Tensor

INT8_MAX = 127


def quantize_per_token(x: Tensor) -> tuple[Tensor, Tensor]:
    """x as int8 and what to multiply it with: the largest magnitude of a token becomes 127.

    x        [..., input_size]
    returns  [..., input_size] int8, and the scales [...] fp32; a token of zeros stays zero
    """
    scale = x.float().abs().amax(-1) / INT8_MAX
    divisor = torch.where(scale == 0, 1.0, scale).unsqueeze(-1)
    return (x.float() / divisor).round().clamp(-INT8_MAX - 1, INT8_MAX).to(torch.int8), scale


def pack_quantized_weight(weight: Tensor) -> Tensor:
    """An int8 weight as quantized_linear wants it.

    weight   [output_size, input_size] int8
    returns  a tensor for quantized_linear only
    """
    return weight


def quantized_linear(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias with x quantized per token on the way.

    x             [..., input_size] bf16 or fp16
    weight        what pack_quantized_weight returned
    weight_scale  [output_size] fp32
    bias          [output_size] or None
    returns       [..., output_size], the dtype of x; sums are exact integers, scaled in fp32
    """
    quantized, scale = quantize_per_token(x.flatten(0, -2))
    # fp64 holds every sum of int8 products that a layer can have exactly.
    sums = quantized.double() @ weight.double().t()
    out = sums.float() * weight_scale.float() * scale.unsqueeze(1)
    if bias is not None:
        out = out + bias.float()
    return out.to(x.dtype).view(*x.shape[:-1], weight.shape[0])
