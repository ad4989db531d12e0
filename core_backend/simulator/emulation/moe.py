"""Mixture of experts: gating, routing, grouped matmul, and the way back."""

from typing import Any

import torch
from torch import Tensor

from core_backend.simulator.emulation.registry import emulates
from core_backend.simulator.emulation.rules import (
    A2_A3,
    ALL,
    CHIP,
    floating,
    int32,
    not_supported,
    rule,
    undefined,
)

GATING = "op-plugin docs, torch_npu-npu_moe_gating_top_k"
GATING_SOFTMAX = "op-plugin docs, torch_npu-npu_moe_gating_top_k_softmax"
INIT_ROUTING = "op-plugin docs, torch_npu-npu_moe_init_routing_v2"
GROUPED_MATMUL = "op-plugin docs, torch_npu-npu_grouped_matmul"
UNPERMUTE = "op-plugin docs, torch_npu-npu_moe_token_unpermute"
MAX_EXPERTS = 2048
INNER_LIMIT = 65536


@emulates("npu::npu_moe_gating_top_k", source=GATING)
def npu_moe_gating_top_k(
    x: Tensor,
    k: int,
    *,
    bias: Tensor | None = None,
    input_ids: Tensor | None = None,
    tid2eid: Tensor | None = None,
    k_group: int = 1,
    group_count: int = 1,
    group_select_mode: int = 0,
    renorm: int = 0,
    norm_type: int = 0,
    out_flag: bool = False,
    routed_scaling_factor: float = 1.0,
    eps: float = 1e-20,
) -> tuple[Tensor, Tensor, Tensor]:
    """The k best experts of each token; sigmoid scores are always normalized, softmax scores never."""
    not_supported(GATING, input_ids=input_ids, tid2eid=tid2eid)
    floating(GATING, x=x, bias=bias)
    num_experts = x.shape[1]
    rule(num_experts <= MAX_EXPERTS, f"at most {MAX_EXPERTS} experts", GATING, num_experts=num_experts)
    rule(num_experts % group_count == 0, "groups are equal", GATING, num_experts=num_experts, group_count=group_count)
    per_group = num_experts // group_count
    rule(
        1 <= k_group <= group_count and 1 <= k <= k_group * per_group,
        "k experts fit into k_group groups",
        GATING,
        k=k,
        k_group=k_group,
        group_count=group_count,
    )
    rule(group_count == 1 or per_group > 2, "a group has more than 2 experts", GATING, per_group=per_group)
    rule(group_select_mode in (0, 1) and norm_type in (0, 1), "modes are 0 or 1", GATING, norm_type=norm_type)
    rule(renorm == 0, "renorm is 0 (other sources allow 1)", GATING, renorm=renorm)
    rule(
        bias is None or (bias.dtype == x.dtype and bias.shape == (num_experts,)),
        "bias is [experts] in the dtype of x",
        GATING,
        bias=None if bias is None else (tuple(bias.shape), bias.dtype),
    )
    scores = x.float().softmax(-1) if norm_type == 0 else x.float().sigmoid()
    eligible = scores if bias is None else scores + bias.float()
    if group_count > 1:
        eligible = _close_groups(eligible, group_count, k_group, group_select_mode)
    chosen = eligible.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    weights = scores.gather(1, chosen)
    if norm_type == 1:
        weights = weights / (weights.sum(-1, keepdim=True) + eps)
    all_scores = scores if out_flag else undefined(*scores.shape, dtype=torch.float32)
    return (weights * routed_scaling_factor).to(x.dtype), chosen.to(torch.int32), all_scores


def _close_groups(eligible: Tensor, group_count: int, k_group: int, mode: int) -> Tensor:
    groups = eligible.view(len(eligible), group_count, eligible.shape[1] // group_count)
    quality = groups.max(-1).values if mode == 0 else groups.sort(-1, descending=True).values[..., :2].sum(-1)
    best = quality.sort(dim=-1, descending=True, stable=True).indices[:, :k_group]
    closed = torch.ones_like(quality, dtype=torch.bool).scatter_(1, best, False)
    return groups.masked_fill(closed.unsqueeze(-1), float("-inf")).view(eligible.shape)


@emulates("npu::npu_moe_gating_top_k_softmax", source=GATING_SOFTMAX, families=ALL)
def npu_moe_gating_top_k_softmax(
    x: Tensor, finished: Tensor | None = None, k: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest of softmax(x), not normalized. The document does not list 310P; vllm-ascend uses it there."""
    not_supported(GATING_SOFTMAX, finished=finished)
    floating(GATING_SOFTMAX, x=x)
    rule(0 < k <= min(1024, x.shape[-1]), "k is at most 1024 and the number of experts", GATING_SOFTMAX, k=k)
    ordered = x.float().softmax(-1).sort(dim=-1, descending=True, stable=True)
    rows = torch.arange(len(x) * k, dtype=torch.int32).view(k, -1).t().contiguous()
    return ordered.values[:, :k].to(x.dtype), ordered.indices[:, :k].to(torch.int32), rows


@emulates("npu::npu_moe_init_routing_v2", source=INIT_ROUTING, families=ALL)
def npu_moe_init_routing_v2(
    x: Tensor,
    expert_idx: Tensor,
    *,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    active_num: int = -1,
    expert_capacity: int = -1,
    expert_num: int = -1,
    drop_pad_mode: int = 0,
    expert_tokens_num_type: int = 0,
    expert_tokens_num_flag: bool = False,
    quant_mode: int = -1,
    active_expert_range: list[int] | None = None,
    row_idx_type: int = 0,
    x_dtype: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows of x sorted by expert; those of experts outside the range come last, and are undefined."""
    not_supported(INIT_ROUTING, scale=scale, offset=offset, x_dtype=x_dtype)
    floating(INIT_ROUTING, x=x)
    int32(INIT_ROUTING, expert_idx=expert_idx)
    rule(
        quant_mode == -1 and drop_pad_mode == 0,
        "quant_mode -1 and drop_pad_mode 0 here",
        INIT_ROUTING,
        quant_mode=quant_mode,
    )
    rule(
        expert_tokens_num_type in (0, 1) and expert_tokens_num_flag,
        "cumsum (0) or count (1)",
        INIT_ROUTING,
        expert_tokens_num_type=expert_tokens_num_type,
        expert_tokens_num_flag=expert_tokens_num_flag,
    )
    first, end = active_expert_range or (0, expert_num)
    rule(
        0 <= first < end <= expert_num <= 10240,
        "active_expert_range lies inside expert_num",
        INIT_ROUTING,
        active_expert_range=(first, end),
        expert_num=expert_num,
    )
    flat = expert_idx.flatten().long()
    rule(
        not len(flat) or (int(flat.min()) >= 0 and int(flat.max()) < expert_num),
        "expert ids are less than expert_num",
        INIT_ROUTING,
        largest=int(flat.max()) if len(flat) else None,
    )
    active = (flat >= first) & (flat < end)
    order = torch.where(active, flat, expert_num).argsort(stable=True)
    num_active = int(active.sum())
    num_rows = min(active_num, len(flat)) if active_num > 0 else len(flat)
    rows = undefined(num_rows, x.shape[1], dtype=x.dtype)
    num_copied = min(num_active, num_rows)
    rows[:num_copied] = x[order[:num_copied] // expert_idx.shape[1]]
    row_idx = torch.full((len(flat),), -1, dtype=torch.int32)
    row_idx[order[:num_active]] = torch.arange(num_active, dtype=torch.int32)
    rule(row_idx_type == 0, "row_idx_type is 0 here", INIT_ROUTING, row_idx_type=row_idx_type)
    tokens = torch.bincount(flat[active] - first, minlength=end - first)
    if expert_tokens_num_type == 0 or CHIP.family == "310P":  # 310P always answers with sums
        tokens = tokens.cumsum(0)
    return rows, row_idx, tokens, undefined(num_rows, dtype=torch.float32)


@emulates("npu::npu_grouped_matmul", source=GROUPED_MATMUL, families=ALL)
def npu_grouped_matmul(
    x: list[Tensor],
    weight: list[Tensor],
    *,
    bias: list[Tensor] | None = None,
    group_list: Tensor | None = None,
    split_item: int | None = 0,
    group_type: int | None = None,
    group_list_type: int | None = 0,
    act_type: int | None = 0,
    **others: Any,
) -> list[Tensor]:
    """Each group of rows times its expert's matrix."""
    not_supported(GROUPED_MATMUL, **others, bias=bias, act_type=act_type or None)
    rule(
        len(x) == len(weight) == 1 and weight[0].dim() == 3 and split_item in (2, 3) and group_type == 0,
        "for experts: one x, one weight [experts, in, out], split_item 2 or 3, group_type 0",
        GROUPED_MATMUL,
        split_item=split_item,
        group_type=group_type,
    )
    rows, matrices = x[0], weight[0]
    floating(GROUPED_MATMUL, x=rows, weight=matrices)
    rule(
        rows.dtype == matrices.dtype, "x and weight have one dtype", GROUPED_MATMUL, x=rows.dtype, weight=matrices.dtype
    )
    if CHIP.family == "310P":
        half = (torch.float16, torch.float32) if CHIP.takes_float32 else (torch.float16,)
        rule(
            rows.dtype in half and matrices.shape[2] % 16 == 0,
            "310P: float16, output size a multiple of 16",
            GROUPED_MATMUL,
            dtype=rows.dtype,
            output_size=matrices.shape[2],
        )
    inner = matrices.shape[2] if matrices.is_contiguous() else matrices.shape[1]
    rule(
        max(rows.shape[1], inner) < INNER_LIMIT,
        f"the last axis of x, and of weight as it lies in memory, is less than {INNER_LIMIT}",
        GROUPED_MATMUL,
        x=rows.shape[1],
        weight=inner,
    )
    rule(
        group_list is not None
        and group_list.dtype == torch.int64
        and group_list.shape == (len(matrices),)
        and len(matrices) <= 1024,
        "group_list is int64 with one number per expert, at most 1024",
        GROUPED_MATMUL,
        group_list=None if group_list is None else (tuple(group_list.shape), group_list.dtype),
    )
    assert group_list is not None
    ends = (group_list if group_list_type == 0 else group_list.cumsum(0)).tolist()
    rule(
        ends == sorted(ends) and (not ends or ends[-1] == len(rows)),
        "the groups sum to the rows of x",
        GROUPED_MATMUL,
        ends=ends[-4:],
        rows=len(rows),
        group_list_type=group_list_type,
    )
    out = undefined(len(rows), matrices.shape[2], dtype=rows.dtype)
    begin = 0
    for expert, end in enumerate(ends):
        out[begin:end] = (rows[begin:end].float() @ matrices[expert].float()).to(rows.dtype)
        begin = end
    return [out]


@emulates("npu::npu_moe_token_unpermute", source=UNPERMUTE, families=A2_A3)
def npu_moe_token_unpermute(
    permuted_tokens: Tensor,
    sorted_indices: Tensor,
    probs: Tensor | None = None,
    padded_mode: bool = False,
    restore_shape: list[int] | None = None,
) -> Tensor:
    """out[i] = sum over j of probs[i, j] * permuted_tokens[sorted_indices[i * k + j]]."""
    not_supported(UNPERMUTE, padded_mode=padded_mode, restore_shape=restore_shape)
    floating(UNPERMUTE, permuted_tokens=permuted_tokens, probs=probs)
    int32(UNPERMUTE, sorted_indices=sorted_indices)
    indices = sorted_indices.long()
    rule(
        not len(indices) or (int(indices.min()) >= 0 and int(indices.max()) < len(permuted_tokens)),
        "sorted_indices lie inside permuted_tokens",
        UNPERMUTE,
        smallest=int(indices.min()) if len(indices) else None,
    )
    rule(len(indices.unique()) == len(indices), "no index occurs twice", UNPERMUTE, indices=indices.tolist()[:8])
    top_k = 1 if probs is None else probs.shape[1]
    rule(
        probs is None or probs.numel() == len(indices),
        "probs has one number per index",
        UNPERMUTE,
        indices=len(indices),
    )
    gathered = permuted_tokens[indices].float().view(len(indices) // top_k, top_k, permuted_tokens.shape[1])
    if probs is not None:
        gathered = gathered * probs.float().unsqueeze(-1)
    return gathered.sum(1).to(permuted_tokens.dtype)
