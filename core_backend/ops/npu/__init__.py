"""The operator vocabulary on torch_npu's fused operators: Atlas A2 and A3. ops/cpu's docstrings say what each means."""

from core_backend.ops.cpu import argmax
from core_backend.ops.npu.activation import gelu_and_mul, silu_and_mul
from core_backend.ops.npu.attention import paged_attention, plan_attention, varlen_attention
from core_backend.ops.npu.kv_cache import compute_slot_mapping, prepare_slot_mapping, write_kv
from core_backend.ops.npu.linear import linear, logits, pack_linear_weight
from core_backend.ops.npu.mla import merge_attention, mla_paged_attention, mla_varlen_attention
from core_backend.ops.npu.moe import (
    combine_experts,
    grouped_matmul,
    pack_expert_weight,
    route_to_experts,
    route_topk,
)
from core_backend.ops.npu.moe_distribute import combine_from_ranks, dispatch_to_ranks
from core_backend.ops.npu.norm import add_rms_norm, rms_norm
from core_backend.ops.npu.quantization import pack_quantized_weight, quantize_per_token, quantized_linear
from core_backend.ops.npu.rotary import mrope, rotary
from core_backend.ops.npu.sampling import apply_top_k_top_p

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
