"""ModelSlim's folders: quant_model_description.json next to the weights says how each tensor is quantized."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.linear import (
    LinearBase,
    LinearMethodBase,
    UnquantizedLinearMethod,
    register_weight_loader_v2_supported_method,
)
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.models.utils import WeightsMapper
from vllm.model_executor.parameter import ChannelQuantScaleParameter, ModelWeightParameter

from core_backend.quantization import w8a8
from core_backend.quantization.supported import ACTIVATION_DTYPES, refuse, refuse_experts

if TYPE_CHECKING:
    from vllm.config import VllmConfig

NAME = "ascend"  # vllm-ascend's name for it
DESCRIPTION = "quant_model_description*.json"  # older versions append the kind: quant_model_description_w8a8.json
FLOAT, DYNAMIC = "FLOAT", "W8A8_DYNAMIC"


def description_in(folder: Path) -> dict[str, Any] | None:
    """What ModelSlim says of the weights in a folder; None if it has not made them.

    Raises ValueError if there is more than one description.
    """
    found = sorted(folder.glob(DESCRIPTION))
    if len(found) > 1:
        raise ValueError(
            f"{folder} holds {len(found)} descriptions of its weights: {', '.join(file.name for file in found)}. "
            "Leave the one that belongs to them."
        )
    description: dict[str, Any] | None = json.loads(found[0].read_text()) if found else None
    return description


def recognize(vllm_config: "VllmConfig") -> None:
    """Set what vLLM has not seen: that the model's folder is one of ModelSlim's."""
    model = vllm_config.model_config
    if model is None or model.quantization is not None:
        return
    if (description := description_in(Path(model.model))) is not None:
        vllm_config.quant_config = ModelSlimConfig(description)
        model.quantization = NAME


class ModelSlimConfig(QuantizationConfig):
    """A description, checked when it is read."""

    chip_features = (w8a8.DYNAMIC,)

    def __init__(self, description: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.kinds = _kinds_in(description or {})  # weight -> FLOAT or W8A8_DYNAMIC

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ModelSlimConfig":
        """Raises NotImplementedError for what has no layers here."""
        return cls(config)

    def maybe_update_config(self, model_name: str, hf_config: Any = None, revision: str | None = None) -> None:
        """Where config.json has no description, take it from the folder. Raises ValueError if there is none."""
        if self.kinds:
            return
        if (description := description_in(Path(model_name))) is None:
            raise ValueError(
                f"quantization={NAME} is for folders with ModelSlim's quant_model_description.json, which "
                f"{model_name!r} does not have: leave quantization unset."
            )
        self.kinds = _kinds_in(description)

    def get_name(self) -> str:
        return NAME

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return ACTIVATION_DTYPES

    @classmethod
    def get_min_capability(cls) -> int:
        return 0

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def override_quantization_method(
        cls, hf_quant_cfg: dict[str, Any], user_quant: str | None, hf_config: Any = None
    ) -> str | None:
        """A description inside config.json has no name of a method."""
        return NAME if "model_quant_type" in hf_quant_cfg else None

    def apply_vllm_mapper(self, hf_to_vllm_mapper: WeightsMapper) -> None:
        self.kinds = hf_to_vllm_mapper.apply_dict(self.kinds)

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        """Raises ValueError for a layer that the description does not name, NotImplementedError for embeddings."""
        if isinstance(layer, RoutedExperts):
            return None  # unquantized: others have been refused
        if isinstance(layer, VocabParallelEmbedding) and self.kinds.get(f"{prefix}.weight", FLOAT) != FLOAT:
            refuse(f"a quantized {prefix} (ModelSlim)")
        if not isinstance(layer, LinearBase):
            return None
        return ModelSlimLinearMethod() if self._kind_of(prefix) == DYNAMIC else UnquantizedLinearMethod()

    def _kind_of(self, prefix: str) -> str:
        name = prefix.rpartition(".")[2]
        parts = [prefix.removesuffix(name) + part for part in self.packed_modules_mapping.get(name, [name])]
        kinds = {self.kinds.get(f"{part}.weight", "nothing") for part in parts}
        if len(kinds) != 1 or "nothing" in kinds:
            raise ValueError(
                f"{prefix} is one layer of {', '.join(parts)}, of which the description says {sorted(kinds)}: "
                "they must be there and quantized alike."
            )
        return kinds.pop()


def _kinds_in(description: dict[str, Any]) -> dict[str, str]:
    """How each weight is quantized. Raises NotImplementedError for what has no layers here."""
    kinds = {name: kind for name, kind in description.items() if name.endswith(".weight")}
    if others := sorted(set(kinds.values()) - {FLOAT, DYNAMIC}):
        refuse(f"ModelSlim's {', '.join(others)}", "quantize the model as W8A8_DYNAMIC")
    for name in ("fa_quant_type", "kv_quant_type", "kv_cache_type"):
        if description.get(name) not in (None, FLOAT):
            refuse(f"ModelSlim's {name} {description[name]}")
    if any(".experts." in name and kind == DYNAMIC for name, kind in description.items()):
        refuse_experts("ModelSlim")
    if biased := [name for name in description if name.endswith("norm.bias")]:
        refuse(f"a bias that ModelSlim's outlier suppression added to norms ({biased[0]})", "quantize without it")
    return kinds


@register_weight_loader_v2_supported_method
class ModelSlimLinearMethod(LinearMethodBase):
    """A layer of kind W8A8_DYNAMIC."""

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra_weight_attrs: Any,
    ) -> None:
        loader, rows = extra_weight_attrs["weight_loader"], sum(output_partition_sizes)
        weight = torch.empty(rows, input_size_per_partition, dtype=torch.int8)
        layer.register_parameter(
            "weight", ModelWeightParameter(data=weight, input_dim=1, output_dim=0, weight_loader=loader)
        )
        for name in ("weight_scale", "weight_offset"):
            values = torch.zeros(rows, 1, dtype=torch.float32)
            layer.register_parameter(name, ChannelQuantScaleParameter(data=values, output_dim=0, weight_loader=loader))

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Raises NotImplementedError for weights with zero points."""
        if layer.weight_offset.data.any():
            refuse("a ModelSlim weight with zero points (weight_offset)", "quantize it symmetrically")
        w8a8.pack(layer, layer.weight_scale.data)

    def apply(self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return w8a8.linear(layer, x, bias)
