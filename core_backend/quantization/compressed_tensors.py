"""compressed-tensors: vLLM reads the format, and takes our kernels for it."""

from typing import Any

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationStrategy, QuantizationType
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import CompressedTensorsConfig
from vllm.model_executor.layers.quantization.compressed_tensors.utils import should_ignore_layer
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

from core_backend.quantization import w8a8
from core_backend.quantization.supported import ACTIVATION_DTYPES, refuse, refuse_experts

NAME = "compressed-tensors"
NOT_HERE = {
    "kv_cache_scheme": "a quantized KV cache",
    "transform_config": "transformed activations",
    "sparsity_config": "sparse weights",
}


class AscendCompressedTensorsConfig(CompressedTensorsConfig):
    """What a checkpoint says of its layers, checked when it is read."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AscendCompressedTensorsConfig":
        """Raises NotImplementedError for what has no kernel here."""
        for key, what in NOT_HERE.items():
            if config.get(key):
                refuse(f"{what} ({NAME}, {key})")
        for group in config.get("config_groups", {}).values():
            _check(group, group.get("format") or config.get("format"))
        return super().from_config(config)

    @property
    def chip_features(self) -> tuple[str, ...]:
        """What the chip must have, as its row calls it."""
        has_int8 = any(scheme["input_activations"] is not None for scheme in self.target_scheme_map.values())
        return (w8a8.DYNAMIC,) if has_int8 else ()

    @property
    def packed_bits(self) -> int:
        """Of the integers in int32 words; 32: there are none."""
        alone = [scheme for scheme in self.target_scheme_map.values() if scheme["input_activations"] is None]
        return min([int(scheme["weights"].num_bits) for scheme in alone], default=32)

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return ACTIVATION_DTYPES

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        if isinstance(layer, Attention):
            return None  # the KV cache is not quantized
        if isinstance(layer, RoutedExperts):
            self._add_fused_moe_to_target_scheme_map()
            if self.get_scheme_dict(layer, f"{prefix}.0.gate_proj") is not None:
                refuse_experts(NAME)
            return None
        is_head = isinstance(layer, ParallelLMHead) and "Linear" in self.target_scheme_map
        if is_head and not should_ignore_layer(prefix, ignore=self.ignore):
            refuse(f"a quantized {prefix} ({NAME})")
        return super().get_quant_method(layer, prefix)


def _check(group: dict[str, Any], packing: str | None) -> None:
    """Raises NotImplementedError for layers that no kernel of ours computes."""
    weights = QuantizationArgs.model_validate(group["weights"])
    activations = group.get("input_activations")
    if any(target.endswith("Attention") for target in group["targets"]):
        refuse(f"quantized attention ({NAME})")
    if group.get("output_activations"):
        refuse(f"quantized outputs ({NAME})")
    if weights.type != QuantizationType.INT.value:
        refuse(f"{weights.num_bits}-bit floating point ({NAME}, {packing})")
    if activations is None:
        _check_weight_only(weights, packing)
    else:
        _check_w8a8(weights, QuantizationArgs.model_validate(activations))


def _check_weight_only(weights: QuantizationArgs, packing: str | None) -> None:
    of_outputs = (QuantizationStrategy.GROUP.value, QuantizationStrategy.CHANNEL.value)
    if packing != "pack-quantized" or weights.num_bits not in (4, 8) or weights.strategy not in of_outputs:
        refuse(f"{weights.num_bits}-bit weights per {weights.strategy} in the packing {packing} ({NAME})")


def _check_w8a8(weights: QuantizationArgs, activations: QuantizationArgs) -> None:
    if activations.type != QuantizationType.INT.value or (weights.num_bits, activations.num_bits) != (8, 8):
        refuse(f"{weights.num_bits}-bit weights with {activations.num_bits}-bit activations ({NAME})")
    if activations.dynamic is not True:
        refuse(f"static activations, whose scales are fixed in the checkpoint ({NAME})")
    if activations.strategy != QuantizationStrategy.TOKEN.value or not activations.symmetric or not weights.symmetric:
        refuse(f"W8A8 with zero points, or activations per {activations.strategy} ({NAME})")
