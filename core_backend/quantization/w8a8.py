"""Layers with int8 weights, and activations that are quantized per token as they come (W8A8 dynamic)."""

import torch
from torch import Tensor
from vllm.model_executor.kernels.linear import Int8ScaledMMLinearKernel, Int8ScaledMMLinearLayerConfig
from vllm.model_executor.layers.quantization.utils.w8a8_utils import convert_to_channelwise

from core_backend.ops.table import operators

DYNAMIC = "W8A8 dynamic"  # as the chip table calls it


def pack(layer: torch.nn.Module, weight_scale: Tensor) -> None:
    """Take a loaded layer's int8 weight [output_size, input_size] and its scales [output_size, 1] into use."""
    layer.quantized_weight = operators().pack_quantized_weight(layer.weight.data)
    layer.weight_scale_per_output = weight_scale.float().flatten().contiguous()
    # The weight is held once.
    layer.weight.data = layer.weight.data.new_empty(0)


def linear(layer: torch.nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
    """What a packed layer computes."""
    return operators().quantized_linear(x, layer.quantized_weight, layer.weight_scale_per_output, bias)


class PerTokenInt8Kernel(Int8ScaledMMLinearKernel):
    """vLLM's kernel of int8 layers, for compressed-tensors."""

    @classmethod
    def is_supported(cls, compute_capability: int | None = None) -> tuple[bool, str | None]:
        return True, None

    @classmethod
    def can_implement(cls, c: Int8ScaledMMLinearLayerConfig) -> tuple[bool, str | None]:
        if c.is_static_input_scheme or not c.input_symmetric:
            return False, "takes activations that are scaled per token, without zero points"
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        scale = layer.weight_scale.data
        if not self.config.is_channelwise:  # one per matrix that the layer is made of
            scale = convert_to_channelwise(scale, layer.logical_widths)
        pack(layer, scale)

    def apply_weights(self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear(layer, x, bias)
