"""The 310P's attention: one operator for decoding, one for prompts over a cache, two for packed sequences."""

import torch
from torch import Tensor

from core_backend.simulator.emulation.layout import NZ_COLUMNS, nz_cache_as_nd
from core_backend.simulator.emulation.registry import emulates
from core_backend.simulator.emulation.rules import Family, contiguous, half_precision, int32, rule
from core_backend.simulator.emulation.softmax_attention import attend_fast

PAGED = "CANN ATB docs, PagedAttentionOperation, and its sources, paged_attention/param.cpp"
SELF = "CANN ATB docs, SelfAttentionOperation"
MASK_SIZE = 2048
MAX_BATCH = 2000
MAX_BLOCK_ELEMENTS = 16384
PAGED_MASK_COMPRESSED, SELF_MASK_COMPRESSED = 5, 3
ON_310P: tuple[Family, ...] = ("310P",)
CACHES: dict[Family, tuple[str, ...]] = {"310P": ("key_cache", "value_cache")}


@emulates("atb::_npu_paged_attention", source=PAGED, families=ON_310P, in_nz=CACHES)
def paged_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    num_kv_heads: int,
    num_heads: int,
    scale_value: float,
    block_table: Tensor,
    context_lens: Tensor,
    out: Tensor,
    *,
    workspace: Tensor | None = None,
) -> None:
    """One query token per request, over its whole context."""
    _check(query, key_cache, value_cache, num_kv_heads, num_heads, block_table, out)
    int32(PAGED, block_table=block_table, context_lens=context_lens)
    rule(
        len(query) == len(block_table) == len(context_lens),
        "query, block_table and context_lens have one row per request",
        PAGED,
        query=len(query),
        block_table=len(block_table),
        context_lens=len(context_lens),
    )
    for i, context_len in enumerate(context_lens.tolist()):
        key, value = (_context(cache, block_table[i], context_len, num_kv_heads) for cache in (key_cache, value_cache))
        out[i] = attend_fast(query[i : i + 1], key, value, scale_value, None)[0]


@emulates(
    "atb::_npu_paged_attention_splitfuse_v2",
    source=PAGED,
    families=ON_310P,
    on_host={"310P": ("seq_len",)},
    in_nz=CACHES,
)
def paged_attention_splitfuse_v2(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_table: Tensor,
    context_lens: Tensor,
    mask: Tensor,
    seq_len: Tensor,
    num_kv_heads: int,
    num_heads: int,
    scale_value: float,
    *,
    mask_type: int = PAGED_MASK_COMPRESSED,
    out: Tensor,
) -> None:
    """seq_len[i] query tokens per request, the last of context_lens[i]; causal."""
    _check(query, key_cache, value_cache, num_kv_heads, num_heads, block_table, out)
    int32(PAGED, block_table=block_table, context_lens=context_lens, seq_len=seq_len)
    rule(mask_type == PAGED_MASK_COMPRESSED, "mask_type is 5 (compressed)", PAGED, mask_type=mask_type)
    _check_additive_mask(mask, PAGED)
    rule(
        bool((context_lens >= seq_len).all()),
        "context_lens count the query tokens too",
        PAGED,
        context_lens=context_lens.tolist()[:8],
        seq_len=seq_len.tolist()[:8],
    )
    rule(
        int(seq_len.sum()) == len(query),
        "seq_len sums to the rows of query",
        PAGED,
        seq_len=seq_len.tolist()[:8],
        rows=len(query),
    )
    begin = 0
    for i, (num_queries, context_len) in enumerate(zip(seq_len.tolist(), context_lens.tolist(), strict=True)):
        rows = slice(begin, begin + num_queries)
        key, value = (_context(cache, block_table[i], context_len, num_kv_heads) for cache in (key_cache, value_cache))
        out[rows] = attend_fast(query[rows], key, value, scale_value, _causal(num_queries, context_len))
        begin = rows.stop


@emulates("atb::_npu_flash_attention_v3", source=SELF, families=ON_310P, on_host={"310P": ("seq_len",)})
def flash_attention_v3(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    seq_len: Tensor,
    scale_value: float,
    num_heads: int,
    num_kv_heads: int,
    *,
    mask_type: int = SELF_MASK_COMPRESSED,
    out: Tensor,
) -> None:
    """Packed sequences without a cache, causal."""
    half_precision(SELF, query=query, key=key, value=value, out=out)
    contiguous(SELF, out=out)
    _check_packed(query, seq_len)
    out.fill_(float("nan"))  # rows past the sequences are not written
    rule(mask_type == SELF_MASK_COMPRESSED, "mask_type is 3 (compressed)", SELF, mask_type=mask_type)
    columns = MASK_SIZE // NZ_COLUMNS
    rule(
        tuple(mask.shape) == (1, columns, MASK_SIZE, NZ_COLUMNS),
        f"the mask is NZ: [1, {columns}, {MASK_SIZE}, {NZ_COLUMNS}]",
        SELF,
        mask=tuple(mask.shape),
    )
    _check_additive_mask(mask[0].transpose(0, 1).reshape(MASK_SIZE, MASK_SIZE), SELF)
    begin = 0
    for length in seq_len.tolist():
        rows = slice(begin, begin + length)
        out[rows] = attend_fast(query[rows], key[rows], value[rows], scale_value, _causal(length, length))
        begin = rows.stop


@emulates("atb::_npu_flash_attention_unpad", source=SELF, families=ON_310P, on_host={"310P": ("seq_len",)})
def flash_attention_unpad(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seq_len: Tensor,
    scale_value: float,
    num_heads: int,
    num_kv_heads: int,
    out: Tensor,
) -> None:
    """Packed sequences without a cache, every token seeing all of its sequence."""
    half_precision(SELF, query=query, key=key, value=value, out=out)
    contiguous(SELF, out=out)
    _check_packed(query, seq_len)
    out.fill_(float("nan"))  # rows past the sequences are not written
    begin = 0
    for length in seq_len.tolist():
        rows = slice(begin, begin + length)
        out[rows] = attend_fast(query[rows], key[rows], value[rows], scale_value, None)
        begin = rows.stop


def _check_packed(query: Tensor, seq_len: Tensor) -> None:
    int32(SELF, seq_len=seq_len)
    rule(
        query.shape[2] % NZ_COLUMNS == 0 and query.shape[2] <= 256,
        "on 310P the head size is a multiple of 16 up to 256",
        SELF,
        query=tuple(query.shape),
    )
    total = int(seq_len.sum())
    rule(
        len(query) == -(-total // 16) * 16,
        "on 310P query has the sum of the lengths, rounded up to 16, rows",
        SELF,
        rows=len(query),
        lengths=seq_len.tolist()[:8],
    )


def _check(
    query: Tensor, key_cache: Tensor, value_cache: Tensor, num_kv_heads: int, num_heads: int, table: Tensor, out: Tensor
) -> None:
    half_precision(PAGED, query=query, key_cache=key_cache, value_cache=value_cache, out=out)
    contiguous(PAGED, key_cache=key_cache, value_cache=value_cache, out=out)
    rule(
        key_cache.dim() == 4 and key_cache.shape == value_cache.shape and key_cache.shape[3] == NZ_COLUMNS,
        "on 310P caches are NZ: [num_blocks, num_kv_heads * head_size / 16, block_size, 16]",
        PAGED,
        key_cache=tuple(key_cache.shape),
    )
    head_size, block_size = key_cache.shape[1] * NZ_COLUMNS // num_kv_heads, key_cache.shape[2]
    rule(
        query.dim() == 3 and query.shape[1:] == (num_heads, head_size) and head_size % 16 == 0 and head_size <= 256,
        "query is [tokens, num_heads, head_size], with the caches' head size, a multiple of 16 up to 256",
        PAGED,
        query=tuple(query.shape),
        head_size=head_size,
    )
    rule(
        num_heads % num_kv_heads == 0,
        "num_kv_heads divides num_heads",
        PAGED,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
    )
    rule(
        block_size % 16 == 0 and head_size * block_size <= MAX_BLOCK_ELEMENTS,
        f"block_size is a multiple of 16, and head_size * block_size at most {MAX_BLOCK_ELEMENTS}",
        PAGED,
        block_size=block_size,
        head_size=head_size,
    )
    rule(0 < len(table) <= MAX_BATCH, f"1 to {MAX_BATCH} requests", PAGED, requests=len(table))


def _check_additive_mask(mask: Tensor, source: str) -> None:
    rule(
        mask.dtype == torch.float16 and tuple(mask.shape) == (MASK_SIZE, MASK_SIZE),
        f"the mask is float16 of {MASK_SIZE} x {MASK_SIZE}",
        source,
        mask=(tuple(mask.shape), mask.dtype),
    )
    if mask.data_ptr() not in _compared:
        above = torch.ones(MASK_SIZE, MASK_SIZE, dtype=torch.bool).triu(1)
        rule(
            bool((mask[above] <= -10000).all()) and not bool(mask[~above].any()),
            _ADDITIVE,
            source,
            mask="another pattern",
        )
        _compared.add(mask.data_ptr())
    # All of it once per buffer; then what a smaller or a shifted mask would change.
    rule(
        not bool(mask.diagonal().any()) and bool((mask.diagonal(1) <= -10000).all()), _ADDITIVE, source, mask="another"
    )


_ADDITIVE = "the mask is additive: -10000 or less above the diagonal, 0 elsewhere"
_compared: set[int] = set()


def _context(cache: Tensor, blocks: Tensor, length: int, num_kv_heads: int) -> Tensor:
    num_blocks = -(-length // cache.shape[2])
    used = blocks[:num_blocks].long()
    rule(
        length > 0 and num_blocks <= len(blocks) and int(used.min()) >= 0 and int(used.max()) < cache.shape[0],
        "block_table has the blocks of the whole context",
        PAGED,
        length=length,
        blocks=used.tolist()[:8],
    )
    return nz_cache_as_nd(cache[used], num_kv_heads).flatten(0, 1)[:length]


def _causal(num_queries: int, num_keys: int) -> Tensor:
    return torch.arange(num_keys) > torch.arange(num_queries)[:, None] + num_keys - num_queries
