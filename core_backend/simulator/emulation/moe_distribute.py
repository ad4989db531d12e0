"""The operators that send tokens to the experts of other ranks, and bring the results back."""

from typing import Any

import torch
from torch import Tensor

from core_backend.simulator.collectives import all_to_all, group_named
from core_backend.simulator.emulation.registry import emulates
from core_backend.simulator.emulation.rules import (
    CHIP,
    half_precision,
    int32,
    not_supported,
    rule,
    undefined,
)

DISPATCH = "op-plugin docs, torch_npu-npu_moe_distribute_dispatch_v2"
COMBINE = "op-plugin docs, torch_npu-npu_moe_distribute_combine_v2"
ASSIST = 128  # numbers per row in assist_info_for_combine; here rank, token and choice are the first three
A2_RANKS = (16, 32, 64, 128, 256)


@emulates("npu::npu_moe_distribute_dispatch_v2", source=DISPATCH)
def npu_moe_distribute_dispatch_v2(
    x: Tensor,
    expert_ids: Tensor,
    group_ep: str,
    ep_world_size: int,
    ep_rank_id: int,
    moe_expert_num: int,
    *,
    expert_scales: Tensor | None = None,
    global_bs: int = 0,
    expert_token_nums_type: int = 1,
    shared_expert_num: int = 1,
    **others: Any,
) -> tuple[Tensor, ...]:
    """Rows by local expert, and for each expert by rank; rows past those that came are undefined."""
    not_supported(DISPATCH, **others)
    half_precision(DISPATCH, x=x)
    _check(x, expert_ids, moe_expert_num, ep_world_size, ep_rank_id, DISPATCH)
    rule(
        (expert_scales is not None) == (CHIP.family == "910B"),
        "expert_scales are given on the 910B and not on the 910_93",
        DISPATCH,
        expert_scales=None if expert_scales is None else tuple(expert_scales.shape),
    )
    rule(
        global_bs in (0, len(x) * ep_world_size) and expert_token_nums_type == 1,
        "global_bs 0 where all ranks have as many tokens, expert_token_nums_type 1 here",
        DISPATCH,
        global_bs=global_bs,
    )
    num_tokens, top_k = expert_ids.shape
    num_local = moe_expert_num // ep_world_size
    flat = expert_ids.flatten().long()
    order = flat.argsort(stable=True)
    to_send = torch.bincount(flat, minlength=moe_expert_num)
    group = group_named(group_ep)
    # [from rank, local expert]
    coming = all_to_all(group, to_send, [num_local] * ep_world_size, [num_local] * ep_world_size)
    coming = coming.view(ep_world_size, num_local)
    sent, received = to_send.view(ep_world_size, num_local).sum(1).tolist(), coming.sum(1).tolist()
    labels = torch.stack((torch.full_like(order, ep_rank_id), order // top_k, order % top_k), dim=1).int()
    rows, labels = (all_to_all(group, rows, sent, received) for rows in (x[order // top_k], labels))
    expert_of_row = torch.arange(num_local).repeat(ep_world_size).repeat_interleave(coming.flatten())
    by_expert = expert_of_row.argsort(stable=True)
    capacity = num_tokens * ep_world_size * min(num_local, top_k)
    expand_x = undefined(capacity, x.shape[1], dtype=x.dtype)
    expand_x[: len(rows)] = rows[by_expert]
    assist = undefined(max(num_tokens * top_k, capacity * ASSIST), dtype=torch.int32)
    assist.view(-1)[: capacity * ASSIST].view(capacity, ASSIST)[: len(rows), :3] = labels[by_expert]
    ends = coming.t().flatten().cumsum(0).int()
    if expert_scales is None:
        weights = torch.empty(0, dtype=torch.float32)
    else:
        hops = moe_expert_num + num_tokens * ep_world_size * 2 * top_k * (ep_world_size // 8)
        ends = torch.cat((ends, undefined(hops - len(ends), dtype=torch.int32)))
        weights = undefined(capacity, dtype=torch.float32)
    scales = undefined(capacity, dtype=torch.float32)
    tp_counts = torch.empty(0, dtype=torch.int32)
    return expand_x, scales, assist, coming.sum(0), ends, tp_counts, weights


@emulates("npu::npu_moe_distribute_combine_v2", source=COMBINE)
def npu_moe_distribute_combine_v2(
    expand_x: Tensor,
    expert_ids: Tensor,
    assist_info_for_combine: Tensor,
    ep_send_counts: Tensor,
    expert_scales: Tensor,
    group_ep: str,
    ep_world_size: int,
    ep_rank_id: int,
    moe_expert_num: int,
    *,
    expand_scales: Tensor | None = None,
    global_bs: int = 0,
    shared_expert_num: int = 1,
    **others: Any,
) -> Tensor:
    """Each row back to the token it came from; the weighted sum of a token's rows."""
    not_supported(COMBINE, **others)
    half_precision(COMBINE, expand_x=expand_x)
    _check(expand_x, expert_ids, moe_expert_num, ep_world_size, ep_rank_id, COMBINE)
    int32(COMBINE, assist_info_for_combine=assist_info_for_combine, ep_send_counts=ep_send_counts)
    rule(expert_scales.dtype == torch.float32, "expert_scales are float32", COMBINE, expert_scales=expert_scales.dtype)
    rule(
        (expand_scales is not None) == (CHIP.family == "910B"),
        "expand_scales come from the dispatch on the 910B and are not given on the 910_93",
        COMBINE,
        expand_scales=None if expand_scales is None else tuple(expand_scales.shape),
    )
    num_rows = int(ep_send_counts[moe_expert_num - 1])
    labels = assist_info_for_combine.view(-1)[: len(expand_x) * ASSIST].view(len(expand_x), ASSIST)[:num_rows, :3]
    by_rank = labels[:, 0].argsort(stable=True)
    sent = torch.bincount(labels[:, 0], minlength=ep_world_size)
    group = group_named(group_ep)
    ones = [1] * ep_world_size
    received = all_to_all(group, sent, ones, ones)
    rows, labels = (
        all_to_all(group, rows[by_rank], sent.tolist(), received.tolist()) for rows in (expand_x[:num_rows], labels)
    )
    _, token, choice = labels.long().unbind(1)
    weighted = rows.float() * expert_scales[token, choice].unsqueeze(1)
    return torch.zeros(len(expert_ids), rows.shape[1]).index_add_(0, token, weighted).to(expand_x.dtype)


def _check(x: Tensor, expert_ids: Tensor, num_experts: int, num_ranks: int, rank: int, source: str) -> None:
    int32(source, expert_ids=expert_ids)
    num_tokens, top_k = expert_ids.shape
    hidden_size = x.shape[1]
    is_a2 = CHIP.family == "910B"
    most = 256 if is_a2 else 512
    rule(0 < num_tokens <= most, f"1 to {most} tokens per rank", source, num_tokens=num_tokens)
    rule(0 < top_k <= 16, "top_k is at most 16", source, top_k=top_k)
    rule(
        0 < hidden_size <= 7168 and hidden_size % 32 == 0 if is_a2 else 1024 <= hidden_size <= 8192,
        "hidden sizes: 910B up to 7168 in steps of 32; 910_93 1024 to 8192",
        source,
        hidden_size=hidden_size,
    )
    rule(
        num_ranks in A2_RANKS if is_a2 else 2 <= num_ranks <= 768,
        "ranks: 910B 16, 32, 64, 128 or 256; 910_93 2 to 768",
        source,
        ep_world_size=num_ranks,
    )
    rule(0 <= rank < num_ranks, "ep_rank_id lies inside ep_world_size", source, ep_rank_id=rank)
    rule(
        num_experts <= 1024 and num_experts % num_ranks == 0 and (not is_a2 or num_experts // num_ranks <= 24),
        "at most 1024 experts, equally many on each rank; on the 910B at most 24",
        source,
        moe_expert_num=num_experts,
        ep_world_size=num_ranks,
    )
    ordered = expert_ids.sort(dim=1).values
    rule(
        int(ordered.min()) >= 0 and int(ordered.max()) < num_experts and bool((ordered.diff(dim=1) > 0).all()),
        "expert ids lie inside moe_expert_num, none twice for a token",
        source,
        expert_ids=expert_ids[:2].tolist(),
    )
