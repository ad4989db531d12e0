"""Attention of all phases by one fused operator: packed query tokens over the paged cache, or over packed sequences."""

from dataclasses import dataclass
from functools import cache

import torch
import torch_npu
from torch import Tensor

MASK_SIZE = 2048  # of the fixed causal mask, whatever the lengths are
NO_LIMIT = 2147483647
MAX_SEQUENCES = 1024  # of npu_fusion_attention; the windows of a few large pictures are more
ALL_VISIBLE, CAUSAL, BAND = 0, 3, 4  # sparse_mode


@dataclass(slots=True)
class NpuAttentionPlan:
    """One step, in the operator's terms."""

    query_ends: list[int]  # cumulative, without the leading 0
    seq_lens: list[int]  # per request
    block_table: Tensor | None  # [num_reqs, max_num_blocks] int32
    block_size: int
    causal: bool
    for_graph: bool = False  # scratch memory must do for the lengths of every later replay

    def lengths(self) -> dict[str, list[int]]:
        """The operator's host-side arguments that change from step to step."""
        return {"actual_seq_lengths": self.query_ends, "actual_seq_lengths_kv": self.seq_lens}


def plan_attention(
    query_start_loc: list[int],
    seq_lens: list[int],
    block_table: Tensor | None,
    *,
    block_size: int,
    causal: bool,
    for_graph: bool = False,
) -> NpuAttentionPlan:
    """See ops/cpu."""
    return NpuAttentionPlan(query_start_loc[1:], seq_lens, block_table, block_size, causal, for_graph)


def paged_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    plan: NpuAttentionPlan,
    *,
    scale: float,
    sliding_window: int | None,
    out: Tensor,
    sinks: Tensor | None = None,
    logits_soft_cap: float | None = None,
) -> None:
    """See ops/cpu. Raises NotImplementedError for a soft cap."""
    if logits_soft_cap is not None:
        raise NotImplementedError("the fused attention operator has no soft cap: use another model.")
    query = query.contiguous()  # a slice of qkv where a layer has no rotary embedding
    sparse_mode, pre_tokens, next_tokens = _sparsity(plan.causal, sliding_window)
    num_blocks, block_size, num_kv_heads = key_cache.shape[:3]
    key, value = (kv_cache.view(num_blocks, block_size, -1) for kv_cache in (key_cache, value_cache))
    mask = None if sparse_mode == ALL_VISIBLE else causal_mask(query.device)
    # The results go straight to `out`; lse is not asked for, but has a place.
    results = [out, query.new_empty(1)]
    if sinks is not None:
        if plan.for_graph:
            raise NotImplementedError("attention with sinks cannot be captured: leave npu_graphs unset.")
        torch_npu.npu_fused_infer_attention_score_v2.out(
            query,
            key,
            value,
            atten_mask=mask,
            actual_seq_qlen=plan.query_ends,
            actual_seq_kvlen=plan.seq_lens,
            block_table=plan.block_table,
            learnable_sink=sinks.to(torch.bfloat16),
            num_query_heads=query.shape[1],
            num_key_value_heads=num_kv_heads,
            softmax_scale=scale,
            pre_tokens=pre_tokens,
            next_tokens=next_tokens,
            input_layout="TND",
            sparse_mode=sparse_mode,
            block_size=block_size,
            out=results,
        )
        return
    workspace = None
    if plan.for_graph:
        workspace = torch_npu._npu_fused_infer_attention_score_get_max_workspace(
            query,
            key,
            value,
            atten_mask=mask,
            actual_seq_lengths=plan.query_ends,
            actual_seq_lengths_kv=plan.seq_lens,
            block_table=plan.block_table,
            num_heads=query.shape[1],
            num_key_value_heads=num_kv_heads,
            scale=scale,
            pre_tokens=pre_tokens,
            next_tokens=next_tokens,
            input_layout="TND",
            sparse_mode=sparse_mode,
            block_size=block_size,
        )
    torch_npu.npu_fused_infer_attention_score.out(
        query,
        key,
        value,
        atten_mask=mask,
        actual_seq_lengths=plan.query_ends,
        actual_seq_lengths_kv=plan.seq_lens,
        block_table=plan.block_table,
        num_heads=query.shape[1],
        num_key_value_heads=num_kv_heads,
        scale=scale,
        pre_tokens=pre_tokens,
        next_tokens=next_tokens,
        input_layout="TND",
        sparse_mode=sparse_mode,
        block_size=block_size,
        workspace=workspace,
        out=results,
    )


def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: NpuAttentionPlan,
    *,
    scale: float,
    sliding_window: int | None,
    out: Tensor,
) -> None:
    """See ops/cpu. By the operator for training, which takes the odd heads that encoders have."""
    sparse_mode, pre_tokens, next_tokens = _sparsity(plan.causal, sliding_window)
    begin = 0
    for first in range(0, len(plan.query_ends), MAX_SEQUENCES):
        ends = plan.query_ends[first : first + MAX_SEQUENCES]
        rows, relative_ends = slice(begin, ends[-1]), [end - begin for end in ends]
        attended = torch_npu.npu_fusion_attention(
            query[rows],
            key[rows],
            value[rows],
            query.shape[1],
            "TND",
            atten_mask=None if sparse_mode == ALL_VISIBLE else causal_mask(query.device),
            scale=scale,
            pre_tockens=pre_tokens,
            next_tockens=next_tokens,
            actual_seq_qlen=relative_ends,
            actual_seq_kvlen=relative_ends,
            sparse_mode=sparse_mode,
        )
        out[rows] = attended[0]
        begin = rows.stop


@cache
def causal_mask(device: torch.device) -> Tensor:
    """[2048, 2048] uint8, 1 above the diagonal: what the compressed modes take at any length."""
    return torch.ones(MASK_SIZE, MASK_SIZE, dtype=torch.uint8, device=device).triu_(1)


def _sparsity(causal: bool, sliding_window: int | None) -> tuple[int, int, int]:
    """(sparse_mode, pre_tokens, next_tokens). The band includes its ends: a window of w is the token and w - 1 more."""
    if sliding_window is not None:
        return BAND, sliding_window - 1, 0 if causal else sliding_window - 1
    return (CAUSAL if causal else ALL_VISIBLE), NO_LIMIT, NO_LIMIT
