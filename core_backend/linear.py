"""vLLM's linear layers, with their weights packed for the device once they are loaded."""

from typing import Any

import torch
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
    UnquantizedLinearMethod,
)
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase

from core_backend.ops.table import operators


class PackedLinearMethod(UnquantizedLinearMethod):
    """vLLM's linear method for unquantized weights, on our operators."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        weight = layer.weight.data
        if weight.ndim != 2:  # a convolution that vLLM keeps in a linear layer
            return
        packed = operators().pack_linear_weight(weight)
        if packed is weight:
            return
        layer.packed_weight = packed
        # The weight is held once: the parameter keeps its name, dtype and device, but no elements.
        layer.weight.data = weight.new_empty(0)

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        weight = getattr(layer, "packed_weight", layer.weight)
        return operators().linear(x, weight, bias)


class PackedWeight:
    """Mixin of an unquantized linear layer that packs its weight."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quant_method: QuantizeMethodBase
        if type(self.quant_method) is UnquantizedLinearMethod:  # a quantized layer keeps its own method
            self.quant_method = PackedLinearMethod()


class AscendReplicatedLinear(PackedWeight, ReplicatedLinear):
    """The whole weight on every rank."""


class AscendColumnParallelLinear(PackedWeight, ColumnParallelLinear):
    """Each rank has a share of the outputs."""


class AscendMergedColumnParallelLinear(PackedWeight, MergedColumnParallelLinear):
    """Several column-parallel layers on the same input (gate and up)."""


class AscendQKVParallelLinear(PackedWeight, QKVParallelLinear):
    """Queries, keys and values of this rank's heads."""


class AscendRowParallelLinear(PackedWeight, RowParallelLinear):
    """Each rank has a share of the inputs; the outputs are summed."""


def register_linear_layers() -> None:
    """Let vLLM build its linear layers with packed weights."""
    ReplicatedLinear.register_oot(AscendReplicatedLinear, name="ReplicatedLinear")
    ColumnParallelLinear.register_oot(AscendColumnParallelLinear, name="ColumnParallelLinear")
    MergedColumnParallelLinear.register_oot(AscendMergedColumnParallelLinear, name="MergedColumnParallelLinear")
    QKVParallelLinear.register_oot(AscendQKVParallelLinear, name="QKVParallelLinear")
    RowParallelLinear.register_oot(AscendRowParallelLinear, name="RowParallelLinear")
