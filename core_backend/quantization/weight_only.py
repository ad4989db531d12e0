"""Layers whose weights alone are quantized: dequantized once, when loaded, and plain linear layers from then on.

That costs the memory of the unquantized weights: the device has matmuls with int4 weights, which are not used yet.
"""

import torch
from torch import Tensor
from vllm.model_executor.kernels.linear.mixed_precision.MPLinearKernel import MPLinearKernel, MPLinearLayerConfig

from core_backend.linear import PackedLinearMethod
from core_backend.quantization.packing import dequantize, groups_of, unpack_int32


def become_plain(layer: torch.nn.Module, weight: Tensor, replaced: tuple[str, ...]) -> None:
    """Give a layer the weight [output_size, input_size] in place of the parameters `replaced`."""
    for name in replaced:
        if hasattr(layer, name):
            delattr(layer, name)
    layer.register_parameter("weight", torch.nn.Parameter(weight, requires_grad=False))
    PackedLinearMethod().process_weights_after_loading(layer)


def linear(layer: torch.nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
    """What a layer computes once it has become plain."""
    return PackedLinearMethod().apply(layer, x, bias)


class DequantizedKernel(MPLinearKernel):
    """vLLM's kernel of layers with packed weights, for compressed-tensors and GPTQ."""

    # GPTQ's first format stores zero points less one.
    zero_point_shift = 0

    @classmethod
    def get_min_capability(cls) -> int:
        return 0

    @classmethod
    def can_implement(cls, c: MPLinearLayerConfig) -> tuple[bool, str | None]:
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        packed = getattr(layer, self.w_q_name)
        values = self._outputs_first(layer, self.w_q_name)
        scales = self._outputs_first(layer, self.w_s_name)
        weight = dequantize(values, scales, self._zeros(layer), self._groups(layer, packed.device))
        names = (self.w_q_name, self.w_s_name, self.w_zp_name, self.w_gidx_name, "weight_shape")
        become_plain(layer, weight, tuple(name for name in names if name is not None))

    def apply_weights(self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear(layer, x, bias)

    def _outputs_first(self, layer: torch.nn.Module, name: str) -> Tensor:
        """A parameter as [output_size, ...], unpacked if it is packed."""
        parameter = getattr(layer, name)
        values = parameter.data
        if (packed_dim := getattr(parameter, "packed_dim", None)) is not None:
            values = unpack_int32(values, self.config.weight_type.size_bits, packed_dim)
        return values if parameter.output_dim == 0 else values.t()

    def _zeros(self, layer: torch.nn.Module) -> Tensor | int:
        if self.config.weight_type.has_bias():  # symmetric: the zero point is the middle
            return int(self.config.weight_type.bias)
        assert self.w_zp_name is not None
        return self._outputs_first(layer, self.w_zp_name) + self.zero_point_shift

    def _groups(self, layer: torch.nn.Module, device: torch.device) -> Tensor:
        if self.config.has_g_idx:
            assert self.w_gidx_name is not None
            return getattr(layer, self.w_gidx_name).data.long()
        return groups_of(self.config.partition_weight_shape[0], self.config.group_size, device)
