"""Tokens to the experts of other ranks and back by operators that compute and communicate at once (MC2)."""

from dataclasses import dataclass

import torch_npu
from torch import Tensor
from torch.distributed import ProcessGroup, get_rank, get_world_size

from core_backend.device import npu
from core_backend.ops.cpu.moe import SentTokens

COUNTS = 1  # expert_token_nums_type


@dataclass(frozen=True, slots=True)
class WayBack:
    """What the dispatch leaves for the combination, unread."""

    group: str
    num_ranks: int
    rank: int
    num_experts: int
    assist: Tensor
    received: Tensor
    received_weights: Tensor | None


def dispatch_to_ranks(
    x: Tensor, topk_ids: Tensor, topk_weights: Tensor | None, *, group: ProcessGroup, num_experts: int
) -> SentTokens:
    """See ops/cpu."""
    name, num_ranks, rank = npu.collective_name(group), get_world_size(group), get_rank(group)
    rows, _, assist, counts, received, _, received_weights = torch_npu.npu_moe_distribute_dispatch_v2(
        x=x,
        expert_ids=topk_ids,
        group_ep=name,
        ep_world_size=num_ranks,
        ep_rank_id=rank,
        moe_expert_num=num_experts,
        expert_scales=topk_weights,
        global_bs=0,
        expert_token_nums_type=COUNTS,
    )
    weights = None if topk_weights is None else received_weights
    return SentTokens(rows, counts, WayBack(name, num_ranks, rank, num_experts, assist, received, weights))


def combine_from_ranks(rows: Tensor, topk_ids: Tensor, topk_weights: Tensor, sent: SentTokens) -> Tensor:
    """See ops/cpu."""
    way: WayBack = sent.way_back
    return torch_npu.npu_moe_distribute_combine_v2(
        expand_x=rows,
        expert_ids=topk_ids,
        assist_info_for_combine=way.assist,
        ep_send_counts=way.received,
        expert_scales=topk_weights,
        group_ep=way.group,
        ep_world_size=way.num_ranks,
        ep_rank_id=way.rank,
        moe_expert_num=way.num_experts,
        expand_scales=way.received_weights,
        global_bs=0,
    )
