"""Mixture of experts with the operators that this chip has."""

from typing import Literal

import torch
import torch_npu
from torch import Tensor

from core_backend.ops.cpu import moe as plain
from core_backend.ops.cpu.moe import EPSILON, ExpertRows


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
    """See ops/cpu. Only plain softmax routing has an operator here; the rest runs as single operators."""
    if scoring != "softmax" or bias is not None or num_expert_groups > 1:
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
    weights, topk_ids, _ = torch_npu.npu_moe_gating_top_k_softmax(router_logits.float(), k=top_k)
    if renormalize:
        weights = weights / (weights.sum(-1, keepdim=True) + EPSILON)
    return weights * scaling_factor, topk_ids


def route_to_experts(x: Tensor, topk_ids: Tensor, *, num_experts: int, first: int, num_local: int) -> ExpertRows:
    """See ops/cpu. Whatever it is asked for, the operator answers with sums here, not counts."""
    rows, row_of, ends, _ = torch_npu.npu_moe_init_routing_v2(
        x,
        topk_ids,
        active_num=topk_ids.numel(),
        expert_num=num_experts,
        expert_tokens_num_type=0,
        expert_tokens_num_flag=True,
        active_expert_range=[first, first + num_local],
    )
    return ExpertRows(rows, torch.cat((ends[:1], ends[1:] - ends[:-1])), row_of)


def combine_experts(rows: Tensor, row_of: Tensor, counts: Tensor, topk_weights: Tensor) -> Tensor:
    """See ops/cpu: as single operators, npu_moe_token_unpermute is not on this chip."""
    return plain.combine_experts(rows, row_of, counts, topk_weights)
