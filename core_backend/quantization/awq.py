"""AWQ: int4 weights with zero points, as AutoAWQ's gemm version packs them."""

from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.linear import (
    UnquantizedLinearMethod,
    register_weight_loader_v2_supported_method,
)
from vllm.model_executor.layers.quantization.awq import AWQConfig, AWQLinearMethod
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.quantization.utils.quant_utils import is_layer_skipped

from core_backend.quantization.packing import dequantize, groups_of, unpack_awq
from core_backend.quantization.supported import ACTIVATION_DTYPES, refuse, refuse_experts
from core_backend.quantization.weight_only import become_plain, linear

NAME = "awq"


class AscendAWQConfig(AWQConfig):
    """What a checkpoint says of its layers, checked when it is read."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AscendAWQConfig":
        """Raises NotImplementedError for another packing than gemm's."""
        bits = cls.get_from_keys(config, ["w_bit", "bits"])
        if bits != 4:
            refuse(f"awq with {bits} bits")
        if (version := config.get("version", "gemm").lower()) != "gemm":
            refuse(f"awq in the version {version}", "quantize the model in the version gemm")
        if not cls.get_from_keys(config, ["zero_point"]):
            refuse("awq without zero points")
        return super().from_config(config)

    @property
    def packed_bits(self) -> int:
        """Of the integers in int32 words."""
        return int(self.weight_bits)

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return ACTIVATION_DTYPES

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        if isinstance(layer, RoutedExperts):
            if not is_layer_skipped(
                prefix, self.modules_to_not_convert, self.packed_modules_mapping, skip_with_substr=True
            ):
                refuse_experts(NAME)
            return None
        method = super().get_quant_method(layer, prefix)
        if method is None or isinstance(method, UnquantizedLinearMethod):
            return method
        return AscendAWQLinearMethod(self)


@register_weight_loader_v2_supported_method
class AscendAWQLinearMethod(AWQLinearMethod):
    """Loads vLLM's parameters of an AWQ layer, which becomes a plain one."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        values = unpack_awq(layer.qweight.data).t()
        zeros = unpack_awq(layer.qzeros.data).t()
        groups = groups_of(values.shape[1], self.quant_config.group_size, values.device)
        weight = dequantize(values, layer.scales.data.t(), zeros, groups)
        become_plain(layer, weight, ("qweight", "qzeros", "scales"))

    def apply(self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear(layer, x, bias)
