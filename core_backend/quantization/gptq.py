"""GPTQ: int4 or int8 weights, symmetric or with zero points, in the order of the inputs or of their activations."""

from typing import Any, ClassVar

import torch
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.linear import register_weight_loader_v2_supported_method
from vllm.model_executor.layers.quantization.auto_gptq import AutoGPTQConfig, AutoGPTQLinearMethod
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.quantization.utils.gptq_utils import get_linear_quant_method
from vllm.scalar_type import scalar_types

from core_backend.quantization.supported import ACTIVATION_DTYPES, refuse, refuse_experts

# checkpoint_format -> what is added to stored zero points
ZERO_POINT_SHIFT = {"gptq": 1, "gptq_v2": 0}


class AscendGPTQConfig(AutoGPTQConfig):
    """What a checkpoint says of its layers, checked when it is read."""

    # vLLM's kernels take symmetric ones only.
    TYPE_MAP: ClassVar = {**AutoGPTQConfig.TYPE_MAP, (4, False): scalar_types.uint4, (8, False): scalar_types.uint8}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AscendGPTQConfig":
        """Raises NotImplementedError for what is packed otherwise, or layer by layer differently."""
        packing = "marlin" if config.get("is_marlin_format") else config.get("checkpoint_format") or "gptq"
        if packing not in ZERO_POINT_SHIFT:
            refuse(f"gptq in the format {packing}, which only a GPU reads")
        if config.get("bits") not in (4, 8):
            refuse(f"gptq with {config.get('bits')} bits")
        if config.get("dynamic"):
            refuse("gptq with settings of its own for some layers (dynamic)")
        if config.get("lm_head"):
            refuse("gptq with a quantized lm_head")
        return super().from_config(config)

    @property
    def zero_point_shift(self) -> int:
        """What is added to stored zero points."""
        return ZERO_POINT_SHIFT[self.full_config.get("checkpoint_format") or "gptq"]

    @property
    def packed_bits(self) -> int:
        """Of the integers in int32 words."""
        return int(self.weight_bits)

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        return ACTIVATION_DTYPES

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        if isinstance(layer, RoutedExperts):
            if any("experts" in name for name in self.modules_in_block_to_quantize):
                refuse_experts("gptq")
            return None
        return get_linear_quant_method(self, layer, prefix, AscendGPTQLinearMethod)


@register_weight_loader_v2_supported_method
class AscendGPTQLinearMethod(AutoGPTQLinearMethod):
    """Loads vLLM's parameters of a GPTQ layer; the kernel is ours."""

    def __init__(self, quant_config: AscendGPTQConfig) -> None:
        # Not the base's: it asks whether the device has Marlin's kernels.
        self.quant_config = quant_config
        self.input_dtype = None
        self.quant_type = quant_config.quant_type

    def create_weights(self, layer: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        super().create_weights(layer, *args, **kwargs)
        self.kernel.zero_point_shift = self.quant_config.zero_point_shift
