"""Mixture of experts: which experts a token goes to, the way there and back, and their matrix products."""

from typing import Literal

import torch
from torch import Tensor

from core_backend.ops import cpu
from core_backend.ops.cpu.moe import ExpertRows

LANES = 16  # elements of a vector
TILE_COLUMNS = 32  # outputs that are packed together


def route_topk(
    router_logits: Tensor,
    top_k: int,
    *,
    scoring: Literal["softmax", "sigmoid"],
    renormalize: bool,
    bias: Tensor | None = None,
    num_expert_groups: int = 1,
    top_k_groups: int = 1,
    scaling_factor: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """See core_backend/ops/cpu."""
    if bias is not None or num_expert_groups > 1:
        groups = {"num_expert_groups": num_expert_groups, "top_k_groups": top_k_groups}
        settings = {"scoring": scoring, "renormalize": renormalize, "bias": bias, "scaling_factor": scaling_factor}
        return cpu.route_topk(router_logits, top_k, **settings, **groups)  # type: ignore[arg-type]
    return torch.ops.ascend_cpu.route_topk.default(
        router_logits, top_k, scoring == "softmax", renormalize, scaling_factor
    )


def route_to_experts(x: Tensor, topk_ids: Tensor, *, num_experts: int, first: int, num_local: int) -> ExpertRows:
    """See core_backend/ops/cpu."""
    if x.dtype != torch.bfloat16 or topk_ids.dtype != torch.int32:
        return cpu.route_to_experts(x, topk_ids, num_experts=num_experts, first=first, num_local=num_local)
    return ExpertRows(*torch.ops.ascend_cpu.route_to_experts.default(x, topk_ids, first, num_local))


def combine_experts(rows: Tensor, row_of: Tensor, counts: Tensor, topk_weights: Tensor) -> Tensor:
    """See core_backend/ops/cpu."""
    has_kernel = rows.dtype == torch.bfloat16 and topk_weights.dtype == torch.float32 and row_of.dtype == torch.int32
    if not has_kernel or rows.shape[1] % LANES:
        return cpu.combine_experts(rows, row_of, counts, topk_weights)
    return torch.ops.ascend_cpu.combine_experts.default(rows, row_of, topk_weights)


def pack_expert_weight(weight: Tensor) -> Tensor:
    """See core_backend/ops/cpu. Of bf16, only the sizes can be read; whole experts can be moved."""
    if not _has_kernel(weight.dtype, *weight.shape[1:]):
        return cpu.pack_expert_weight(weight)
    return torch.ops.ascend_cpu.pack_expert_weight.default(weight)


def grouped_matmul(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """See core_backend/ops/cpu."""
    # What was not packed for the kernel is the transpose of something dense.
    if not _has_kernel(weight.dtype, weight.shape[2], weight.shape[1]) or not weight.is_contiguous():
        return cpu.grouped_matmul(x, weight, counts)
    return torch.ops.ascend_cpu.grouped_linear.default(x, weight, counts)


def _has_kernel(dtype: torch.dtype, output_size: int, input_size: int) -> bool:
    return dtype == torch.bfloat16 and output_size % TILE_COLUMNS == 0 and input_size % 2 == 0
