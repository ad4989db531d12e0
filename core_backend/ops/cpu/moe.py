"""Mixture of experts: which experts a token goes to, and the way there and back."""

from typing import Any, Literal, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

EPSILON = 1e-20


class ExpertRows(NamedTuple):
    """The tokens of a step, sorted by the expert they go to."""

    rows: Tensor  # [num_tokens * top_k, hidden_size]; rows past counts.sum() are unspecified
    counts: Tensor  # [num_local_experts] int64: how many rows each expert gets, in the experts' order
    row_of: Tensor  # [num_tokens * top_k] int32: the row of a token's choice; -1 if its expert is not local


class SentTokens(NamedTuple):
    """What dispatch_to_ranks brought to this rank, and what takes it back."""

    rows: Tensor  # [>= counts.sum(), hidden_size], sorted by expert; those past the sum are unspecified
    counts: Tensor  # [num_local_experts] int64
    way_back: Any  # opaque outside the operator set


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
    """The top_k experts of each token, and their weights.

    router_logits      [num_tokens, num_experts]
    renormalize        whether a token's weights are divided by their sum
    bias               [num_experts]: added for the choice only, not to the weights; None: none
    num_expert_groups  experts form as many equal groups, of which only the best top_k_groups are open; a group is
                       as good as its two best experts together with a bias, as its best without
    returns            weights [num_tokens, top_k] fp32, and expert ids [num_tokens, top_k] int32
    Source: arXiv 2401.06066, 2412.19437; vllm/model_executor/layers/fused_moe/router.
    """
    logits = router_logits.float()
    scores = logits.softmax(-1) if scoring == "softmax" else logits.sigmoid()
    eligible = scores if bias is None else scores + bias.float()
    if num_expert_groups > 1:
        grouped = eligible.unflatten(-1, (num_expert_groups, -1))
        quality = grouped.amax(-1) if bias is None else grouped.topk(2, dim=-1).values.sum(-1)
        is_open = torch.zeros_like(quality, dtype=torch.bool).scatter(
            1, quality.topk(top_k_groups, dim=-1).indices, True
        )
        eligible = grouped.masked_fill(~is_open.unsqueeze(-1), float("-inf")).flatten(-2)
    topk_ids = eligible.topk(top_k, dim=-1).indices
    weights = scores.gather(1, topk_ids)
    if renormalize:
        weights = weights / (weights.sum(-1, keepdim=True) + EPSILON)
    return weights * scaling_factor, topk_ids.int()


def route_to_experts(x: Tensor, topk_ids: Tensor, *, num_experts: int, first: int, num_local: int) -> ExpertRows:
    """Copy each token once for every local expert it goes to, sorted by expert.

    x            [num_tokens, hidden_size]
    topk_ids     [num_tokens, top_k] int32
    num_experts  of the whole model; first and num_local: those held here are first .. first + num_local - 1
    """
    flat = topk_ids.flatten().long() - first
    is_local = (flat >= 0) & (flat < num_local)
    order = torch.where(is_local, flat, num_local).argsort(stable=True)
    num_rows = int(is_local.sum())
    row_of = torch.full_like(flat, -1, dtype=torch.int32)
    row_of[order[:num_rows]] = torch.arange(num_rows, dtype=torch.int32)
    return ExpertRows(
        rows=x[order // topk_ids.shape[1]],
        counts=torch.bincount(flat[is_local], minlength=num_local),
        row_of=row_of,
    )


def pack_expert_weight(weight: Tensor) -> Tensor:
    """The weights of several experts as grouped_matmul wants them.

    weight   [num_local_experts, output_size, input_size]
    returns  [num_local_experts, input_size, output_size], contiguous: whole experts can be moved between ranks
    """
    return weight.transpose(1, 2).contiguous()


def grouped_matmul(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """Each expert's rows times its weight.

    x        [num_rows, input_size], sorted by expert
    weight   [num_local_experts, input_size, output_size]: what pack_expert_weight returned, or the transpose of
             what is dense
    counts   [num_local_experts] int64; their sum may be less than num_rows
    returns  [num_rows, output_size]; rows past counts.sum() are unspecified
    """
    out = x.new_empty(x.shape[0], weight.shape[2])
    begin = 0
    for expert, count in enumerate(counts.tolist()):
        if not count:  # its weight is not even read
            continue
        torch.mm(x[begin : begin + count], weight[expert], out=out[begin : begin + count])
        begin += count
    return out


def combine_experts(rows: Tensor, row_of: Tensor, counts: Tensor, topk_weights: Tensor) -> Tensor:
    """The weighted sum of what each token's experts made of it.

    rows          [num_tokens * top_k, hidden_size]; rows past counts.sum() are not read
    row_of        [num_tokens * top_k] int32, as route_to_experts returned it; -1 adds nothing
    topk_weights  [num_tokens, top_k]
    returns       [num_tokens, hidden_size], the dtype of rows; summed in fp32
    """
    is_here = (row_of >= 0).unsqueeze(1)
    gathered = rows[row_of.clamp(min=0).long()].float().masked_fill(~is_here, 0)
    weighted = gathered.view(*topk_weights.shape, rows.shape[1]) * topk_weights.float().unsqueeze(-1)
    return weighted.sum(1).to(rows.dtype)


def dispatch_to_ranks(
    x: Tensor, topk_ids: Tensor, topk_weights: Tensor | None, *, group: ProcessGroup, num_experts: int
) -> SentTokens:
    """Send each token to the ranks of its experts, of which each has equally many, by one fused operator.

    x             [num_tokens, hidden_size], num_tokens the same on all ranks and at least 1
    topk_ids      [num_tokens, top_k] int32, no expert twice for a token
    topk_weights  [num_tokens, top_k] fp32 where the chip's operator sends them along, else None
    group         the expert-parallel ranks
    Raises NotImplementedError: only NPUs have it. The same is done by route_to_experts and all-to-all.
    """
    _only_on_npus()


def combine_from_ranks(rows: Tensor, topk_ids: Tensor, topk_weights: Tensor, sent: SentTokens) -> Tensor:
    """The way back of dispatch_to_ranks: the weighted sum of what each token's experts made of it.

    rows     [as sent.rows]
    returns  [num_tokens, hidden_size]
    Raises NotImplementedError: only NPUs have it.
    """
    _only_on_npus()


def _only_on_npus() -> NoReturn:
    raise NotImplementedError("there is no fused operator that sends tokens here: use all_to_all or all_gather.")
