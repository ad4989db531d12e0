"""Attention over a cache in FRACTAL_NZ: one operator for decoding, one for everything else, both causal.

Lengths of queries are read on the host, lengths of contexts on the device (CANN ATB, paged_attention/param.cpp).
"""

from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
import torch_npu
from torch import Tensor

from core_backend.hardware import NZ_COLUMNS

MASK_SIZE = 2048
HIDDEN = -10000.0
ROWS = 16  # packed tokens are rounded up to these
FRACTAL_NZ = 29


@dataclass(slots=True)
class NzAttentionPlan:
    """One step, in the operators' terms."""

    query_lens: Tensor  # [num_reqs] int32, on the host
    seq_lens: list[int]
    block_table: Tensor | None  # [num_reqs, max_num_blocks] int32
    causal: bool
    only_decodes: bool
    context_lens: list[Tensor] = field(default_factory=list)  # [num_reqs] int32 on the device, once it is known


def plan_attention(
    query_start_loc: list[int],
    seq_lens: list[int],
    block_table: Tensor | None,
    *,
    block_size: int,
    causal: bool,
    for_graph: bool = False,
) -> NzAttentionPlan:
    """See ops/cpu."""
    query_lens = [end - begin for begin, end in pairwise(query_start_loc)]
    on_device = [] if block_table is None else [torch.tensor(seq_lens, dtype=torch.int32).to(block_table.device)]
    return NzAttentionPlan(
        query_lens=torch.tensor(query_lens, dtype=torch.int32),
        seq_lens=seq_lens,
        block_table=block_table,
        causal=causal,
        only_decodes=all(length == 1 for length in query_lens),
        context_lens=on_device,
    )


def paged_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    plan: NzAttentionPlan,
    *,
    scale: float,
    sliding_window: int | None,
    out: Tensor,
    sinks: Tensor | None = None,
    logits_soft_cap: float | None = None,
) -> None:
    """See ops/cpu. Raises NotImplementedError for a variant that this chip has no operator for."""
    _refuse(plan, sliding_window, sinks, logits_soft_cap)
    if not plan.seq_lens:
        return
    assert plan.block_table is not None
    num_kv_heads = key_cache.shape[1] * NZ_COLUMNS // query.shape[2]
    if plan.only_decodes:
        torch_npu._npu_paged_attention(
            query=query,
            key_cache=key_cache,
            value_cache=value_cache,
            num_kv_heads=num_kv_heads,
            num_heads=query.shape[1],
            scale_value=scale,
            block_table=plan.block_table,
            context_lens=plan.context_lens[0],
            out=out,
        )
        return
    torch_npu._npu_paged_attention_splitfuse_v2(
        query=query,
        key_cache=key_cache,
        value_cache=value_cache,
        block_table=plan.block_table,
        context_lens=plan.context_lens[0],
        mask=_causal_mask(query.device),
        seq_len=plan.query_lens,
        num_kv_heads=num_kv_heads,
        num_heads=query.shape[1],
        scale_value=scale,
        out=out,
    )


def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: NzAttentionPlan,
    *,
    scale: float,
    sliding_window: int | None,
    out: Tensor,
) -> None:
    """See ops/cpu. Raises NotImplementedError for a sliding window."""
    _refuse(plan, sliding_window, may_be_bidirectional=True)
    if not plan.seq_lens:
        return
    num_tokens, head_size = query.shape[0], query.shape[2]
    padded_query, padded_key, padded_value = (_rounded_up(x) for x in (query, key, value))
    attended = torch.empty_like(padded_query)
    num_heads, num_kv_heads = query.shape[1], key.shape[1]
    if plan.causal:
        torch_npu._npu_flash_attention_v3(
            query=padded_query,
            key=padded_key,
            value=padded_value,
            mask=_causal_mask_nz(query.device),
            seq_len=plan.query_lens,
            scale_value=scale,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            out=attended,
        )
    else:
        torch_npu._npu_flash_attention_unpad(
            query=padded_query,
            key=padded_key,
            value=padded_value,
            seq_len=plan.query_lens,
            scale_value=scale,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            out=attended,
        )
    out.copy_(attended[:num_tokens, :, :head_size])


def _refuse(
    plan: NzAttentionPlan,
    sliding_window: int | None,
    sinks: Tensor | None = None,
    logits_soft_cap: float | None = None,
    *,
    may_be_bidirectional: bool = False,
) -> None:
    wanted = {
        "a sliding window": sliding_window is not None,
        "attention sinks": sinks is not None,
        "a soft cap": logits_soft_cap is not None,
        "attention that is not causal over a cache": not plan.causal and not may_be_bidirectional,
    }
    if asked_for := [name for name, is_wanted in wanted.items() if is_wanted]:
        raise NotImplementedError(
            f"the Atlas 300I Duo (310P) has no operator for {', '.join(asked_for)}: use another model or chip."
        )


def _rounded_up(x: Tensor) -> Tensor:
    """Rows, and the elements of a head (72 in some vision towers), filled up with zeros, which add nothing."""
    missing_rows, missing_elements = -x.shape[0] % ROWS, -x.shape[2] % NZ_COLUMNS
    if missing_rows == missing_elements == 0:
        return x
    return F.pad(x, (0, missing_elements, 0, 0, 0, missing_rows))


@cache
def _causal_mask(device: torch.device) -> Tensor:
    """[2048, 2048] float16: added to the scores, at any length."""
    return torch.full((MASK_SIZE, MASK_SIZE), HIDDEN, dtype=torch.float16, device=device).triu_(1)


@cache
def _causal_mask_nz(device: torch.device) -> Tensor:
    """The same in FRACTAL_NZ: [1, 128, 2048, 16]."""
    columns = _causal_mask(device).view(MASK_SIZE, -1, NZ_COLUMNS).transpose(0, 1).unsqueeze(0).contiguous()
    return torch_npu.npu_format_cast(columns, FRACTAL_NZ)
