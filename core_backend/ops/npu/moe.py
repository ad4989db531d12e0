"""Mixture of experts: which experts a token goes to, and the way there and back."""

from typing import Literal

import torch
import torch_npu
from torch import Tensor

from core_backend.ops.cpu import moe as plain
from core_backend.ops.cpu.moe import EPSILON, ExpertRows, pack_expert_weight

__all__ = ["combine_experts", "grouped_matmul", "pack_expert_weight", "route_to_experts", "route_topk"]

SOFTMAX, SIGMOID = 0, 1  # norm_type
BEST_EXPERT, TWO_BEST_EXPERTS = 0, 1  # group_select_mode
COUNTS = 1  # expert_tokens_num_type and group_list_type
SPLIT_ROWS = 0  # group_type
ONE_OUTPUT = 2  # split_item
MIN_GROUP = 3


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
    """See ops/cpu. The operator always normalizes sigmoid scores, and never softmax scores: those are divided here."""
    groups_too_small = num_expert_groups > 1 and router_logits.shape[1] // num_expert_groups < MIN_GROUP
    if groups_too_small or (scoring == "sigmoid" and not renormalize):
        return plain.route_topk(
            router_logits,
            top_k,
            scoring=scoring,
            renormalize=renormalize,
            bias=bias,
            num_expert_groups=num_expert_groups,
            top_k_groups=top_k_groups,
            scaling_factor=scaling_factor,
        )
    divide_here = scoring == "softmax" and renormalize
    weights, topk_ids, _ = torch_npu.npu_moe_gating_top_k(
        router_logits.float(),
        top_k,
        bias=None if bias is None else bias.float(),
        k_group=top_k_groups,
        group_count=num_expert_groups,
        group_select_mode=BEST_EXPERT if bias is None else TWO_BEST_EXPERTS,
        norm_type=SOFTMAX if scoring == "softmax" else SIGMOID,
        routed_scaling_factor=1.0 if divide_here else scaling_factor,
    )
    if divide_here:
        weights = weights * (scaling_factor / (weights.sum(-1, keepdim=True) + EPSILON))
    return weights, topk_ids


def route_to_experts(x: Tensor, topk_ids: Tensor, *, num_experts: int, first: int, num_local: int) -> ExpertRows:
    """See ops/cpu."""
    rows, row_of, counts, _ = torch_npu.npu_moe_init_routing_v2(
        x,
        topk_ids,
        active_num=topk_ids.numel(),
        expert_num=num_experts,
        expert_tokens_num_type=COUNTS,
        expert_tokens_num_flag=True,
        active_expert_range=[first, first + num_local],
    )
    return ExpertRows(rows, counts, row_of)


def grouped_matmul(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """See ops/cpu. The groups must sum to the rows: rows past them, which nobody reads, go to the last expert."""
    groups = counts.clone()
    groups[-1:] += x.shape[0] - counts.sum()
    return torch_npu.npu_grouped_matmul(
        x=[x],
        weight=[weight],
        split_item=ONE_OUTPUT,
        group_type=SPLIT_ROWS,
        group_list=groups,
        group_list_type=COUNTS,
    )[0]


def combine_experts(rows: Tensor, row_of: Tensor, counts: Tensor, topk_weights: Tensor) -> Tensor:
    """See ops/cpu. The operator reads every row, so those that are undefined are cleared, and weighted by zero."""
    is_here = row_of >= 0
    num_here = counts.sum()
    past = torch.arange(rows.shape[0], device=rows.device) >= num_here
    # No index may occur twice: choices that are not here take the cleared rows, one each.
    spare = (~is_here).cumsum(0, dtype=torch.int32) - 1 + num_here
    return torch_npu.npu_moe_token_unpermute(
        permuted_tokens=rows.masked_fill(past.unsqueeze(1), 0),
        sorted_indices=torch.where(is_here, row_of, spare.to(torch.int32)),
        probs=topk_weights.masked_fill(~is_here.view(topk_weights.shape), 0),
    )
