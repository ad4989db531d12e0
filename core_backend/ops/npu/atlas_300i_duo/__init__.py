"""The operator vocabulary on the Atlas 300I Duo (310P): its own attention and KV cache, the rest as on the other chips.

What the chip table refuses there has no operator here either: calling it raises NotImplementedError.
"""

# npu_top_k_top_p is not on this chip: sampling and three-part rotary embedding run as single operators,
# and nothing sends tokens by itself.
from core_backend.ops.cpu import apply_top_k_top_p, argmax, combine_from_ranks, dispatch_to_ranks, mrope
from core_backend.ops.npu import (
    add_rms_norm,
    compute_slot_mapping,
    gelu_and_mul,
    grouped_matmul,
    linear,
    logits,
    pack_expert_weight,
    pack_linear_weight,
    prepare_slot_mapping,
    rms_norm,
    silu_and_mul,
    write_kv,
)
from core_backend.ops.npu.atlas_300i_duo.attention import paged_attention, plan_attention, varlen_attention
from core_backend.ops.npu.atlas_300i_duo.moe import combine_experts, route_to_experts, route_topk
from core_backend.ops.npu.atlas_300i_duo.refused import (
    merge_attention,
    mla_paged_attention,
    mla_varlen_attention,
    pack_quantized_weight,
    quantize_per_token,
    quantized_linear,
)
from core_backend.ops.npu.atlas_300i_duo.rotary import rotary

__all__ = [
    "add_rms_norm",
    "apply_top_k_top_p",
    "argmax",
    "combine_experts",
    "combine_from_ranks",
    "compute_slot_mapping",
    "dispatch_to_ranks",
    "gelu_and_mul",
    "grouped_matmul",
    "linear",
    "logits",
    "merge_attention",
    "mla_paged_attention",
    "mla_varlen_attention",
    "mrope",
    "pack_expert_weight",
    "pack_linear_weight",
    "pack_quantized_weight",
    "paged_attention",
    "plan_attention",
    "prepare_slot_mapping",
    "quantize_per_token",
    "quantized_linear",
    "rms_norm",
    "rotary",
    "route_to_experts",
    "route_topk",
    "silu_and_mul",
    "varlen_attention",
    "write_kv",
]
