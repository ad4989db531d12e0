"""npu_fused_infer_attention_score (FIA), first and second form, in the TND layout: packed query tokens over packed or
paged keys and values.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core_backend.simulator.emulation.registry import emulates
from core_backend.simulator.emulation.rules import (
    CHIP,
    contiguous,
    half_precision,
    int32,
    not_supported,
    rule,
    undefined,
)
from core_backend.simulator.emulation.softmax_attention import attend, attend_fast

V1 = "op-plugin docs, torch_npu-npu_fused_infer_attention_score"
V2 = "op-plugin docs, torch_npu-npu_fused_infer_attention_score_v2"
ACLNN = "CANN ops-transformer docs, aclnnFusedInferAttentionScoreV4"
MASK_SIZE = 2048
INFINITE = 2147483647
MAX_BLOCK_SIZE = 1024
MAX_TOKEN_FEATURES = 65535
MAX_REQUESTS = 4096
LATENT_SIZE, LATENT_ROPE_SIZE = 512, 64
LATENT_HEADS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(slots=True)
class Call:
    """One call, with the names of both forms brought together."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    query_ends: list[int] | None
    kv_lengths: list[int] | None  # per request with a block table, else cumulative
    block_table: Tensor | None
    query_rope: Tensor | None
    key_rope: Tensor | None
    sink: Tensor | None
    num_heads: int
    num_kv_heads: int
    scale: float
    pre_tokens: int
    next_tokens: int
    sparse_mode: int
    block_size: int
    want_lse: bool


@emulates("npu::npu_fused_infer_attention_score", source=V1)
def fia(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    atten_mask: Tensor | None = None,
    actual_seq_lengths: list[int] | None = None,
    actual_seq_lengths_kv: list[int] | None = None,
    block_table: Tensor | None = None,
    query_rope: Tensor | None = None,
    key_rope: Tensor | None = None,
    num_heads: int = 1,
    scale: float = 1.0,
    pre_tokens: int = INFINITE,
    next_tokens: int = INFINITE,
    input_layout: str = "BSH",
    num_key_value_heads: int = 0,
    sparse_mode: int = 0,
    inner_precise: int = 0,
    block_size: int = 0,
    antiquant_mode: int = 0,
    key_antiquant_mode: int = 0,
    value_antiquant_mode: int = 0,
    softmax_lse_flag: bool = False,
    **others: Any,
) -> tuple[Tensor, Tensor]:
    """Attention of packed queries; see Call."""
    not_supported(V1, **others, inner_precise=inner_precise or None)
    rule(input_layout == "TND", "only the layout TND is emulated", V1, input_layout=input_layout)
    call = Call(
        query,
        key,
        value,
        atten_mask,
        actual_seq_lengths,
        actual_seq_lengths_kv,
        block_table,
        query_rope,
        key_rope,
        None,
        num_heads,
        num_key_value_heads or num_heads,
        scale,
        pre_tokens,
        next_tokens,
        sparse_mode,
        block_size,
        softmax_lse_flag,
    )
    return _attention(call, V1)


@emulates("npu::npu_fused_infer_attention_score_v2", source=V2)
def fia_v2(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    query_rope: Tensor | None = None,
    key_rope: Tensor | None = None,
    atten_mask: Tensor | None = None,
    actual_seq_qlen: list[int] | None = None,
    actual_seq_kvlen: list[int] | None = None,
    block_table: Tensor | None = None,
    learnable_sink: Tensor | None = None,
    num_query_heads: int = 1,
    num_key_value_heads: int = 0,
    softmax_scale: float = 1.0,
    pre_tokens: int = INFINITE,
    next_tokens: int = INFINITE,
    input_layout: str = "BSH",
    sparse_mode: int = 0,
    block_size: int = 0,
    query_quant_mode: int = 0,
    key_quant_mode: int = 0,
    value_quant_mode: int = 0,
    inner_precise: int = 0,
    return_softmax_lse: bool = False,
    **others: Any,
) -> tuple[Tensor, Tensor]:
    """The same with a sink; see Call."""
    not_supported(V2, **others, inner_precise=inner_precise or None)
    rule(input_layout == "TND", "only the layout TND is emulated", V2, input_layout=input_layout)
    call = Call(
        query,
        key,
        value,
        atten_mask,
        actual_seq_qlen,
        actual_seq_kvlen,
        block_table,
        query_rope,
        key_rope,
        learnable_sink,
        num_query_heads,
        num_key_value_heads or num_query_heads,
        softmax_scale,
        pre_tokens,
        next_tokens,
        sparse_mode,
        block_size,
        return_softmax_lse,
    )
    return _attention(call, V2)


@emulates("npu::npu_fused_infer_attention_score.out", source=V1)
def fia_out(
    query: Tensor, key: Tensor, value: Tensor, *, workspace: Tensor | None = None, out: list[Tensor], **arguments: Any
) -> tuple[Tensor, Tensor]:
    """Results are written to `out`."""
    return _write_to(out, fia(query, key, value, **arguments), V1)


@emulates("npu::npu_fused_infer_attention_score_v2.out", source=V2)
def fia_v2_out(
    query: Tensor, key: Tensor, value: Tensor, *, workspace: Tensor | None = None, out: list[Tensor], **arguments: Any
) -> tuple[Tensor, Tensor]:
    """Results are written to `out`."""
    return _write_to(out, fia_v2(query, key, value, **arguments), V2)


def _write_to(out: list[Tensor], results: tuple[Tensor, Tensor], source: str) -> tuple[Tensor, Tensor]:
    attended, lse = results
    contiguous(source, out=out[0])
    rule(
        len(out) == 2 and out[0].shape == attended.shape and out[0].dtype == attended.dtype,
        "out has two tensors, the first of the result's shape and dtype",
        source,
        out=[tuple(tensor.shape) for tensor in out],
        result=tuple(attended.shape),
    )
    out[0].copy_(attended)
    if lse.numel():
        out[1].copy_(lse)
    return out[0], out[1]


@emulates("npu::_npu_fused_infer_attention_score_get_max_workspace", source=V1)
def fia_max_workspace(query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Tensor:
    """Scratch memory for any lengths; nothing here uses it."""
    return query.new_empty(1)


@emulates("npu::_npu_fused_infer_attention_score_infer_output", source=V1)
def fia_infer_output(
    query: Tensor,
    value: Tensor,
    *,
    num_key_value_heads: int = 0,
    num_heads: int = 1,
    softmax_lse_flag: bool = False,
    **arguments: Any,
) -> tuple[Tensor, Tensor]:
    """Empty tensors of the results' shapes."""
    return query.new_empty(query.shape), torch.empty(
        *query.shape[:2], 1, dtype=torch.float32
    ) if softmax_lse_flag else _no_lse()


def _attention(call: Call, source: str) -> tuple[Tensor, Tensor]:
    _check_tensors(call, source)
    _check_lengths(call, source)
    _check_mask(call, source)
    if call.block_table is not None:
        _check_paging(call, source)
    _check_head_size(call, source)
    num_tokens, value_size = call.query.shape[0], _size_of(call, call.value)
    out = undefined(num_tokens, call.num_heads, value_size, dtype=call.query.dtype)
    lse = undefined(num_tokens, call.num_heads, 1, dtype=torch.float32)
    begin = 0
    assert call.query_ends is not None
    for request, end in enumerate(call.query_ends):
        if end > begin:
            out[begin:end], lse[begin:end] = _attend_request(call, request, begin, end)
        begin = end
    return out, lse if call.want_lse else _no_lse()


def _attend_request(call: Call, request: int, begin: int, end: int) -> tuple[Tensor, Tensor | float]:
    query, key, value = call.query[begin:end], _keys_of(call, request), _values_of(call, request)
    if call.query_rope is not None:
        assert call.key_rope is not None
        query = torch.cat((query, call.query_rope[begin:end]), dim=-1)
        key = torch.cat((key, _tokens_of(call, call.key_rope, request)), dim=-1)
    hidden = _hidden(call, end - begin, len(key))
    if call.want_lse or call.sink is not None or len(key) < end - begin or value.shape[-1] != query.shape[-1]:
        return attend(query, key, value, call.scale, hidden, call.sink)
    return attend_fast(query, key, value, call.scale, hidden), float("nan")


def _no_lse() -> Tensor:
    return torch.empty(0, dtype=torch.float32)


def _size_of(call: Call, stored: Tensor) -> int:
    """Elements of one token and head in keys or values."""
    if call.block_table is None or stored.dim() == 4:
        return stored.shape[-1]
    return stored.shape[-1] // call.num_kv_heads if stored.dim() == 3 else stored.shape[2] * stored.shape[4]


def _keys_of(call: Call, request: int) -> Tensor:
    return _tokens_of(call, call.key, request)


def _values_of(call: Call, request: int) -> Tensor:
    return _tokens_of(call, call.value, request)


def _tokens_of(call: Call, stored: Tensor, request: int) -> Tensor:
    """[num_tokens, num_kv_heads, size]: one request's keys or values."""
    assert call.kv_lengths is not None
    length = call.kv_lengths[request]
    if call.block_table is None:
        return stored[call.kv_lengths[request - 1] if request else 0 : length]
    num_blocks = -(-length // call.block_size)
    blocks = stored[call.block_table[request, :num_blocks].long()]
    if stored.dim() == 3:  # [num_blocks, block_size, num_kv_heads * size]
        tokens = blocks.unflatten(-1, (call.num_kv_heads, -1))
    elif stored.dim() == 4:  # [num_blocks, num_kv_heads, block_size, size]
        tokens = blocks.transpose(1, 2)
    else:  # NZ: [num_blocks, num_kv_heads, size / 16, block_size, 16]
        tokens = blocks.permute(0, 3, 1, 2, 4).flatten(3)
    return tokens.flatten(0, 1)[:length]


def _hidden(call: Call, num_queries: int, num_keys: int) -> Tensor | None:
    if call.sparse_mode == 0:
        return None
    if call.sparse_mode == 3 and num_queries == 1:
        return None
    distance = torch.arange(num_keys) - (torch.arange(num_queries)[:, None] + num_keys - num_queries)
    if call.sparse_mode == 3:  # causal, aligned at the lower right corner
        return distance > 0
    return (distance > call.next_tokens) | (distance < -call.pre_tokens)


def _check_tensors(call: Call, source: str) -> None:
    half_precision(source, query=call.query, key=call.key, value=call.value)
    contiguous(source, query=call.query, key=call.key, value=call.value)
    rule(
        call.query.dim() == 3 and call.query.shape[1] == call.num_heads,
        "query is [tokens, num_heads, head_size]",
        source,
        query=tuple(call.query.shape),
        num_heads=call.num_heads,
    )
    rule(
        call.num_heads % call.num_kv_heads == 0 and call.num_heads // call.num_kv_heads <= 64,
        "num_key_value_heads divides num_heads, at most 64 times",
        source,
        num_heads=call.num_heads,
        num_key_value_heads=call.num_kv_heads,
    )


def _check_lengths(call: Call, source: str) -> None:
    ends, lengths = call.query_ends, call.kv_lengths
    rule(
        ends is not None and lengths is not None,
        "in TND both lists of lengths are given",
        source,
        query=ends,
        kv=lengths,
    )
    assert ends is not None
    assert lengths is not None
    rule(len(ends) <= MAX_REQUESTS, f"at most {MAX_REQUESTS} requests", source, requests=len(ends))
    rule(all(length >= 0 for length in lengths), "lengths are not negative", source, kv_lengths=lengths[:8])
    rule(len(ends) == len(lengths), "both lists of lengths have one entry per request", source, query=ends, kv=lengths)
    rule(
        ends == sorted(ends) and (not ends or ends[0] >= 0) and (ends[-1] if ends else 0) == len(call.query),
        "query lengths are cumulative, without the leading 0, and the last is the number of query tokens",
        f"{source}; the device's own message",
        lengths=ends[:8],
        num_tokens=len(call.query),
    )
    if call.block_table is None:
        rule(
            lengths == sorted(lengths) and (not lengths or lengths[-1] <= len(call.key)),
            "without a block table, kv lengths are cumulative and end inside key",
            source,
            lengths=lengths[:8],
            num_tokens=len(call.key),
        )


def _check_mask(call: Call, source: str) -> None:
    rule(call.sparse_mode in (0, 3, 4), "in TND sparse_mode is 0, 3 or 4", source, sparse_mode=call.sparse_mode)
    if call.sparse_mode == 0:
        rule(call.mask is None, "in TND sparse_mode 0 takes no mask", source, mask=_shape(call.mask))
        return
    check_causal_mask(call.mask, source)
    if call.sparse_mode == 4:
        rule(
            call.pre_tokens + call.next_tokens >= 0 and _size_of(call, call.value) == call.query.shape[-1],
            "the band is not empty, and keys and values have one size",
            ACLNN,
            pre_tokens=call.pre_tokens,
            next_tokens=call.next_tokens,
        )


def check_causal_mask(mask: Tensor | None, source: str) -> None:
    """The fixed mask of the compressed modes, at any length."""
    rule(
        mask is not None and tuple(mask.shape[-2:]) == (MASK_SIZE, MASK_SIZE),
        f"sparse_mode 2, 3 and 4 take a mask of {MASK_SIZE} x {MASK_SIZE}",
        source,
        mask=_shape(mask),
    )
    assert mask is not None
    rule(
        mask.dtype in (torch.bool, torch.int8, torch.uint8), "the mask is bool, int8 or uint8", source, dtype=mask.dtype
    )
    # Comparing all of it costs more than the attention of a step: once per buffer, then two elements.
    if mask.data_ptr() not in _compared:
        expected = torch.ones(MASK_SIZE, MASK_SIZE, dtype=torch.bool).triu(1)
        rule(torch.equal(mask.reshape(MASK_SIZE, MASK_SIZE).bool(), expected), _CAUSAL, source, mask="another pattern")
        _compared.add(mask.data_ptr())
    corner = mask.reshape(MASK_SIZE, MASK_SIZE)[0]
    rule(not bool(corner[0]) and bool(corner[-1]), _CAUSAL, source, mask="another pattern")


_CAUSAL = "the mask is 1 (hidden) above the diagonal and 0 elsewhere"
_compared: set[int] = set()


def _check_paging(call: Call, source: str) -> None:
    table = call.block_table
    assert table is not None
    assert call.kv_lengths is not None
    int32(source, block_table=table)
    rule(
        call.block_size > 0 and call.block_size % 16 == 0 and call.block_size <= MAX_BLOCK_SIZE,
        f"block_size is a multiple of 16, at most {MAX_BLOCK_SIZE}",
        source,
        block_size=call.block_size,
    )
    rule(
        call.block_size <= 128 or call.query_rope is not None,
        "GQA and MHA in TND take block sizes up to 128",
        ACLNN,
        block_size=call.block_size,
    )
    longest = max(call.kv_lengths, default=0)
    rule(
        table.dim() == 2 and table.shape[0] == len(call.kv_lengths) and table.shape[1] * call.block_size >= longest,
        "kv lengths are per request with a block table, which has a row for each and blocks for the longest",
        source,
        block_table=tuple(table.shape),
        block_size=call.block_size,
        kv_lengths=call.kv_lengths[:8],
    )
    for request, length in enumerate(call.kv_lengths):
        blocks = table[request, : -(-length // call.block_size)]
        rule(
            not len(blocks) or (int(blocks.min()) >= 0 and int(blocks.max()) < call.key.shape[0]),
            "block ids lie inside the cache",
            source,
            request=request,
            blocks=blocks.tolist()[:8],
        )
    if call.key.dim() == 3:
        rule(
            call.key.shape[1] == call.block_size and call.key.shape[2] <= MAX_TOKEN_FEATURES,
            f"a cache is [num_blocks, block_size, num_kv_heads * head_size <= {MAX_TOKEN_FEATURES}]",
            source,
            cache=tuple(call.key.shape),
        )

    paged = [call.key, call.value, *([] if call.key_rope is None else [call.key_rope])]
    axis = {3: 1, 4: 2, 5: 3}[call.key.dim()]
    rule(
        all(stored.shape[0] == call.key.shape[0] and stored.shape[axis] == call.block_size for stored in paged),
        "all caches have one number of blocks, and block_size slots in each",
        source,
        caches=[tuple(stored.shape) for stored in paged],
        block_size=call.block_size,
    )
    rule(
        call.key.dim() == 3 or all(stored.shape[1] == call.num_kv_heads for stored in paged),
        "a cache of 4 or 5 dimensions has its kv heads in the second",
        source,
        caches=[tuple(stored.shape) for stored in paged],
    )


def _check_head_size(call: Call, source: str) -> None:
    head_size = call.query.shape[-1]
    if call.query_rope is not None or call.key_rope is not None:
        _check_latent(call, source)
        return
    value_size = _size_of(call, call.value)
    grouped = call.num_heads != call.num_kv_heads
    rule(
        (head_size == value_size and (head_size in (64, 128) or (grouped and head_size % 16 == 0 and head_size <= 256)))
        or (head_size, value_size) == (192, 128),
        "head sizes are 64 or 128, 192 with values of 128, or with grouped heads any multiple of 16 up to 256",
        ACLNN,
        head_size=head_size,
        value_size=value_size,
    )
    if call.sink is not None:
        rule(
            call.sink.shape == (call.num_heads,) and call.sink.dtype in (torch.bfloat16, torch.float16, *_float32()),
            "learnable_sink is [num_heads] in bfloat16 or float16",
            ACLNN,
            sink=tuple(call.sink.shape),
            dtype=call.sink.dtype,
        )
        rule(value_size in (64, 128), "with a sink, values have 64 or 128 elements", ACLNN, value_size=value_size)


def _check_latent(call: Call, source: str) -> None:
    query_rope, key_rope = call.query_rope, call.key_rope
    rule(
        query_rope is not None and key_rope is not None,
        "query_rope and key_rope come together",
        source,
        query_rope=query_rope,
    )
    assert query_rope is not None
    assert key_rope is not None
    head_size = call.query.shape[-1]
    rule(
        head_size in (128, LATENT_SIZE) and query_rope.shape[-1] == LATENT_ROPE_SIZE,
        f"with query_rope, query has {LATENT_SIZE} or 128 elements and query_rope {LATENT_ROPE_SIZE}",
        source,
        query=tuple(call.query.shape),
        query_rope=tuple(query_rope.shape),
    )
    half_precision(source, query=call.query, query_rope=query_rope, key_rope=key_rope)
    contiguous(source, query_rope=query_rope, key_rope=key_rope)
    rule(
        query_rope.shape[:2] == call.query.shape[:2] and _size_of(call, key_rope) == LATENT_ROPE_SIZE,
        f"query_rope goes with query, and key_rope has {LATENT_ROPE_SIZE} elements too",
        source,
        query_rope=tuple(query_rope.shape),
        key_rope=tuple(key_rope.shape),
    )
    if head_size == LATENT_SIZE:
        rule(
            call.num_kv_heads == 1 and call.num_heads in LATENT_HEADS,
            f"with a head size of {LATENT_SIZE} there is 1 kv head and num_heads is one of {LATENT_HEADS}",
            source,
            num_heads=call.num_heads,
            num_key_value_heads=call.num_kv_heads,
        )
        rule(call.block_table is not None, f"a head size of {LATENT_SIZE} needs a paged cache", ACLNN, block_table=None)
        rule(not call.want_lse, f"no lse with a head size of {LATENT_SIZE}", source, softmax_lse_flag=call.want_lse)


def _float32() -> tuple[torch.dtype, ...]:
    return (torch.float32,) if CHIP.takes_float32 else ()


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)


ATTENTION_UPDATE = "op-plugin docs, torch_npu-npu_attention_update"


@emulates("npu::npu_attention_update", source=ATTENTION_UPDATE)
def npu_attention_update(lse: list[Tensor], local_out: list[Tensor], update_type: int) -> tuple[Tensor, Tensor]:
    """Results of attention over several sets of keys, weighted by their lse."""
    rule(
        1 <= len(lse) == len(local_out) <= 16, "1 to 16 pairs", ATTENTION_UPDATE, lse=len(lse), local_out=len(local_out)
    )
    rule(update_type in (0, 1), "update_type is 0 or 1", ATTENTION_UPDATE, update_type=update_type)
    for scores, out in zip(lse, local_out, strict=True):
        rule(
            scores.dtype == torch.float32 and scores.dim() == 1,
            "lse is float32 [tokens * heads]",
            ATTENTION_UPDATE,
            lse=(tuple(scores.shape), scores.dtype),
        )
        rule(
            out.dim() == 2 and len(out) == len(scores) and out.shape[1] % 8 == 0 and 8 <= out.shape[1] <= 512,
            "local_out is [tokens * heads, size], size a multiple of 8 up to 512",
            ATTENTION_UPDATE,
            local_out=tuple(out.shape),
        )
        rule(
            bool(scores.isfinite().all()),
            "lse is finite (what infinities give is not documented)",
            ATTENTION_UPDATE,
            lse="inf",
        )
        contiguous(ATTENTION_UPDATE, lse=scores, local_out=out)
    together = torch.stack(lse).logsumexp(0)
    merged = sum(
        out.float() * (scores - together).exp().unsqueeze(1) for scores, out in zip(lse, local_out, strict=True)
    )
    assert isinstance(merged, Tensor)
    return merged.to(local_out[0].dtype), together if update_type else undefined(len(together), dtype=torch.float32)
