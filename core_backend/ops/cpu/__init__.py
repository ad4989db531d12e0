"""The operator vocabulary in plain torch: what every user without an NPU runs, and the specification."""

from core_backend.ops.cpu.activation import silu_and_mul
from core_backend.ops.cpu.attention import paged_attention, plan_attention, varlen_attention
from core_backend.ops.cpu.kv_cache import compute_slot_mapping, write_kv
from core_backend.ops.cpu.linear import linear, pack_linear_weight
from core_backend.ops.cpu.norm import add_rms_norm, rms_norm
from core_backend.ops.cpu.rotary import rotary

__all__ = [
    "add_rms_norm",
    "compute_slot_mapping",
    "linear",
    "pack_linear_weight",
    "paged_attention",
    "plan_attention",
    "rms_norm",
    "rotary",
    "silu_and_mul",
    "varlen_attention",
    "write_kv",
]
