"""The CPU operator set with kernels of its own for bfloat16 and int8 on AVX-512 (core_backend/cpu_kernels).

What has no kernel (other dtypes, odd sizes) is computed by the plain operators, core_backend/ops/cpu, which are also
the specification. Importing this package compiles the kernels if this machine has not done so yet.
"""

from core_backend.cpu_kernels.build import load

load()

from core_backend.ops.cpu import (  # noqa: E402
    apply_top_k_top_p,
    combine_from_ranks,
    compute_slot_mapping,
    dispatch_to_ranks,
    gelu_and_mul,
    merge_attention,
    mrope,
    prepare_slot_mapping,
    quantize_per_token,
)
from core_backend.ops.cpu_avx512.activation import silu_and_mul  # noqa: E402
from core_backend.ops.cpu_avx512.attention import (  # noqa: E402
    paged_attention,
    plan_attention,
    varlen_attention,
    write_kv,
)
from core_backend.ops.cpu_avx512.linear import linear, logits, pack_linear_weight  # noqa: E402
from core_backend.ops.cpu_avx512.mla import mla_paged_attention, mla_varlen_attention  # noqa: E402
from core_backend.ops.cpu_avx512.moe import (  # noqa: E402
    combine_experts,
    grouped_matmul,
    pack_expert_weight,
    route_to_experts,
    route_topk,
)
from core_backend.ops.cpu_avx512.norm import add_rms_norm, rms_norm  # noqa: E402
from core_backend.ops.cpu_avx512.quantization import pack_quantized_weight, quantized_linear  # noqa: E402
from core_backend.ops.cpu_avx512.rotary import rotary  # noqa: E402
from core_backend.ops.cpu_avx512.sampling import argmax  # noqa: E402

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
