"""The operator vocabulary in plain torch: what every user without an NPU runs, and the specification."""

from core_backend.ops.cpu.activation import gelu_and_mul, silu_and_mul
from core_backend.ops.cpu.attention import paged_attention, plan_attention, varlen_attention
from core_backend.ops.cpu.kv_cache import compute_slot_mapping, prepare_slot_mapping, write_kv
from core_backend.ops.cpu.linear import linear, logits, pack_linear_weight
from core_backend.ops.cpu.mla import merge_attention, mla_paged_attention, mla_varlen_attention
from core_backend.ops.cpu.moe import (
    combine_experts,
    combine_from_ranks,
    dispatch_to_ranks,
    grouped_matmul,
    pack_expert_weight,
    route_to_experts,
    route_topk,
)
from core_backend.ops.cpu.norm import add_rms_norm, rms_norm
from core_backend.ops.cpu.quantization import pack_quantized_weight, quantize_per_token, quantized_linear
from core_backend.ops.cpu.rotary import mrope, rotary
from core_backend.ops.cpu.sampling import apply_top_k_top_p, argmax

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
