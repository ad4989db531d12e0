"""The layers that adapters may change, and what sizes their matrices have."""

from torch import nn
from vllm.lora.layers import (
    BaseLayerWithLoRA,
    LogitsProcessorWithLoRA,
    VocabParallelEmbeddingWithLoRA,
)
from vllm.lora.lora_weights import LoRALayerWeights
from vllm.model_executor.layers.linear import QKVParallelLinear

Sizes = tuple[int, int]  # of a layer's input and output, all ranks together


def targets(modules: dict[str, BaseLayerWithLoRA], packed_modules: dict[str, list[str]]) -> dict[str, Sizes | None]:
    """By an adapter's names for the layers; None: its sizes are vLLM's own to check.

    modules         the layers with LoRA, by the model's names
    packed_modules  the layers of an adapter that the model holds as one
    """
    found: dict[str, Sizes | None] = {}
    for name, module in modules.items():
        parts = packed_modules.get(name)
        if parts is None:
            found[name] = _sizes(module)
        else:
            found.update(zip(parts, _sizes_of_parts(module.base_layer, len(parts)), strict=True))
    return found


def why_not_fitting(name: str, weights: LoRALayerWeights, sizes: Sizes) -> str | None:
    """What is wrong with an adapter's matrices for one layer; None if nothing is."""
    lora_a, lora_b = weights.lora_a, weights.lora_b
    if lora_a is None or lora_b is None:
        return f"{name} has only one of its two matrices"
    if lora_a.shape[0] != lora_b.shape[1]:
        return f"the matrices of {name} have the ranks {lora_a.shape[0]} and {lora_b.shape[1]}"
    if (given := (lora_a.shape[1], lora_b.shape[0])) != sizes:
        return f"{name} is {sizes[0]} x {sizes[1]} here, and {given[0]} x {given[1]} in the adapter"
    return None


def _sizes(module: BaseLayerWithLoRA) -> Sizes:
    base = module.base_layer
    if isinstance(module, LogitsProcessorWithLoRA):
        return module.hidden_size, base.vocab_size
    if isinstance(module, VocabParallelEmbeddingWithLoRA):
        return base.org_vocab_size, base.embedding_dim
    if isinstance(base, QKVParallelLinear):
        return base.input_size, sum(_sizes_of_qkv(base))
    return base.input_size, base.output_size


def _sizes_of_parts(base: nn.Module, num_parts: int) -> list[Sizes | None]:
    outputs = _sizes_of_qkv(base) if isinstance(base, QKVParallelLinear) else base.output_sizes
    if len(outputs) != num_parts:  # an adapter's layer may cover several of ours (qkv and z)
        return [None] * num_parts
    return [(base.input_size, size) for size in outputs]


def _sizes_of_qkv(base: QKVParallelLinear) -> list[int]:
    """Without the copies of kv heads that there are if ranks outnumber them."""
    return [
        base.total_num_heads * base.head_size,
        base.total_num_kv_heads * base.head_size,
        base.total_num_kv_heads * base.v_head_size,
    ]
