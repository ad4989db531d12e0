"""npu_fusion_attention in the TND layout: packed sequences without a cache."""

from typing import Any

import torch
from torch import Tensor

from core_backend.simulator.emulation.fused_attention import check_causal_mask
from core_backend.simulator.emulation.registry import emulates
from core_backend.simulator.emulation.rules import floating, not_supported, rule, undefined
from core_backend.simulator.emulation.softmax_attention import attend

FUSION = "op-plugin docs, torch_npu-npu_fusion_attention"
MAX_HEAD_SIZE = 768
MAX_SEQUENCES = 1024
INFINITE = 2147483647


@emulates("npu::npu_fusion_attention", source=FUSION)
def npu_fusion_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    input_layout: str,
    pse: Tensor | None = None,
    padding_mask: Tensor | None = None,
    atten_mask: Tensor | None = None,
    scale: float = 1.0,
    keep_prob: float = 1.0,
    pre_tockens: int = INFINITE,
    next_tockens: int = INFINITE,
    inner_precise: int = 0,
    prefix: list[int] | None = None,
    actual_seq_qlen: list[int] | None = None,
    actual_seq_kvlen: list[int] | None = None,
    sparse_mode: int = 0,
    gen_mask_parallel: bool = True,
    sync: bool = False,
    softmax_layout: str = "",
    **others: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int, int]:
    """Attention inside each sequence; both lists of lengths are cumulative."""
    not_supported(FUSION, pse=pse, padding_mask=padding_mask, prefix=prefix, sink=others.get("sink"))
    rule(input_layout == "TND", "only the layout TND is emulated", FUSION, input_layout=input_layout)
    floating(FUSION, query=query, key=key, value=value)
    rule(query.dtype == key.dtype == value.dtype, "query, key and value have one dtype", FUSION, query=query.dtype)
    rule(
        query.shape[1] == head_num and head_num % key.shape[1] == 0 and head_num <= 256,
        "query has head_num heads, at most 256, and the kv heads divide them",
        FUSION,
        query=tuple(query.shape),
        key=tuple(key.shape),
        head_num=head_num,
    )
    rule(query.shape[2] <= MAX_HEAD_SIZE, f"head sizes go up to {MAX_HEAD_SIZE}", FUSION, query=tuple(query.shape))
    rule(keep_prob == 1.0, "no dropout here", FUSION, keep_prob=keep_prob)
    query_ends, kv_ends = _checked_ends(actual_seq_qlen, len(query)), _checked_ends(actual_seq_kvlen, len(key))
    rule(sparse_mode in (0, 3, 4), "sparse_mode is 0, 3 or 4 here", FUSION, sparse_mode=sparse_mode)
    rule(
        (sparse_mode == 0) == (atten_mask is None),
        "without a mask sparse_mode has no effect",
        FUSION,
        sparse_mode=sparse_mode,
    )
    if atten_mask is not None:
        check_causal_mask(atten_mask, FUSION)
        rule(atten_mask.dtype in (torch.bool, torch.uint8), "the mask is bool or uint8", FUSION, dtype=atten_mask.dtype)
    out = undefined(*query.shape[:2], value.shape[2], dtype=query.dtype)
    starts = [0, *query_ends], [0, *kv_ends]
    for i in range(len(query_ends)):
        rows, columns = slice(*starts[0][i : i + 2]), slice(*starts[1][i : i + 2])
        hidden = _hidden(rows, columns, sparse_mode, pre_tockens, next_tockens)
        out[rows], _ = attend(query[rows], key[columns], value[columns], scale, hidden)
    statistics = undefined(head_num, len(query), 8, dtype=torch.float32)
    if softmax_layout != "TND":
        statistics = statistics.view(len(query), head_num, 8)
    return out, statistics, statistics.clone(), query.new_empty(0), 0, 0, 0


def _hidden(rows: slice, columns: slice, sparse_mode: int, pre: int, following: int) -> Tensor | None:
    if sparse_mode == 0:
        return None
    num_queries, num_keys = rows.stop - rows.start, columns.stop - columns.start
    distance = torch.arange(num_keys) - (torch.arange(num_queries)[:, None] + num_keys - num_queries)
    return distance > 0 if sparse_mode == 3 else (distance > following) | (distance < -pre)


def _checked_ends(ends: list[int] | None, num_tokens: int) -> list[int]:
    rule(
        ends is not None
        and list(ends) == sorted(ends)
        and len(ends) <= MAX_SEQUENCES
        and (not ends or ends[-1] == num_tokens),
        f"lengths are cumulative, without the leading 0, end at the last token, and are at most {MAX_SEQUENCES}",
        FUSION,
        lengths=None if ends is None else list(ends)[:8],
        num_tokens=num_tokens,
    )
    assert ends is not None
    return list(ends)
