"""vLLM's output layer, with its weight packed for the device once it is loaded."""

import weakref
from typing import Any

import torch
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
)

from core_backend.ops.table import operators


class PackedHeadMethod(UnquantizedEmbeddingMethod):
    """vLLM's method for an unquantized output layer, on our operators."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        weight = layer.weight.data
        packed = operators().pack_linear_weight(weight)
        if packed is weight:
            return
        layer.packed_weight = packed
        if not layer.is_tied:
            layer.weight.data = weight.new_empty(0)

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return operators().logits(x, getattr(layer, "packed_weight", layer.weight), bias)


class AscendParallelLMHead(ParallelLMHead):
    """From the last layer's output to a score for each token."""

    quant_method: QuantizeMethodBase

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._own_weight = weakref.ref(self.weight)
        if type(self.quant_method) is UnquantizedEmbeddingMethod:  # a quantized layer keeps its own method
            self.quant_method = PackedHeadMethod()

    @property
    def is_tied(self) -> bool:
        """Whether the weight is the embeddings', which are read from it: some models assign it, others tie_weights."""
        return self._own_weight() is not self.weight


def register_lm_head() -> None:
    """Let vLLM build its output layer with a packed weight."""
    ParallelLMHead.register_oot(AscendParallelLMHead, name="ParallelLMHead")
