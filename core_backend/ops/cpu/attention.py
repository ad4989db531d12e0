"""Attention over the paged KV cache, and over packed sequences without a cache.

Requests that decode (one query token) are attended to together, padded to the longest of their group; every
other request is attended to by itself. Both end in torch's scaled_dot_product_attention, whose CPU kernel
never builds the score matrix.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

# What one group may gather, so that many requests on one long shared prefix do not copy it all at once.
MAX_GATHERED_SLOTS = 1 << 16
# vLLM allocates this block to nobody, so nothing is ever written there. Source: vllm/v1/core/block_pool.py.
NULL_BLOCK_ID = 0


@dataclass(slots=True)
class DecodeGroup:
    """Requests with one query token each and contexts of similar length."""

    tokens: Tensor  # [num_reqs] int64: their rows in query
    block_ids: Tensor  # [num_reqs * num_blocks] int32: their blocks; past a request's own, the null block
    seq_lens: Tensor  # [num_reqs] int64
    unwritten: Tensor  # int64: gathered slots that follow a request's last token in its last block
    context_len: int  # slots gathered per request: whole blocks, the longest of the group


@dataclass(slots=True)
class Sequence:
    """One request's query tokens, and where its keys and values are."""

    start: int  # its query tokens are rows start:end
    end: int
    seq_len: int  # context and query tokens together
    block_ids: Tensor | None  # [num_blocks] int32; None: keys and values are rows start:end, as the query


@dataclass(slots=True)
class CpuAttentionPlan:
    """One step's requests, sorted by how they are computed, with the masks that all layers share."""

    decodes: list[DecodeGroup]
    sequences: list[Sequence]
    causal: bool
    masks: dict[tuple[object, ...], Tensor | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variant:
    """What a layer's attention is like."""

    scale: float
    sliding_window: int | None
    sinks: Tensor | None = None
    logits_soft_cap: float | None = None

    @property
    def is_plain(self) -> bool:
        """Whether scores are only scaled, and every earlier token is seen."""
        return self.sliding_window is None and self.sinks is None and self.logits_soft_cap is None


def plan_attention(
    query_start_loc: list[int],
    seq_lens: list[int],
    block_table: Tensor | None,
    *,
    block_size: int,
    causal: bool,
    for_graph: bool = False,
) -> CpuAttentionPlan:
    """Sort one step's requests for paged_attention or varlen_attention; done once for all layers.

    query_start_loc  num_reqs + 1 positions: where each request's query tokens begin
    seq_lens         num_reqs lengths: context and query tokens together
    block_table      [num_reqs, max_num_blocks] int32, or None for varlen_attention
    causal           whether a token sees only those before it and itself
    for_graph        whether what is planned is captured as a graph, and replayed with other lengths
    Source: vllm/v1/attention/backend.py, CommonAttentionMetadata.
    """
    plan = CpuAttentionPlan([], [], causal)
    decoding: dict[int, list[int]] = defaultdict(list)
    for req_id, seq_len in enumerate(seq_lens):
        start, end = query_start_loc[req_id : req_id + 2]
        if start == end:
            continue
        num_blocks = -(-seq_len // block_size)
        if block_table is None:
            plan.sequences.append(Sequence(start, end, seq_len, None))
        elif end - start == 1:
            # Classes of doubling length: padding at most doubles what is gathered.
            decoding[num_blocks.bit_length()].append(req_id)
        else:
            plan.sequences.append(Sequence(start, end, seq_len, block_table[req_id, :num_blocks]))
    for size_class, req_ids in decoding.items():
        assert block_table is not None
        max_reqs = max(1, MAX_GATHERED_SLOTS // (block_size << size_class))
        for first in range(0, len(req_ids), max_reqs):
            group = req_ids[first : first + max_reqs]
            plan.decodes.append(_decode_group(group, query_start_loc, seq_lens, block_table, block_size))
    return plan


def _decode_group(
    req_ids: list[int], query_start_loc: list[int], seq_lens: list[int], block_table: Tensor, block_size: int
) -> DecodeGroup:
    lengths = torch.tensor([seq_lens[req_id] for req_id in req_ids])
    blocks_used = (lengths + block_size - 1) // block_size
    num_blocks = int(blocks_used.max())
    slots = torch.arange(num_blocks * block_size)
    is_unwritten = (slots >= lengths[:, None]) & (slots < (blocks_used * block_size)[:, None])
    is_own = torch.arange(num_blocks) < blocks_used[:, None]
    return DecodeGroup(
        tokens=torch.tensor([query_start_loc[req_id] for req_id in req_ids]),
        block_ids=block_table[torch.tensor(req_ids), :num_blocks].where(is_own, NULL_BLOCK_ID).flatten(),
        seq_lens=lengths,
        unwritten=is_unwritten.flatten().nonzero().flatten(),
        context_len=num_blocks * block_size,
    )


def paged_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    plan: CpuAttentionPlan,
    *,
    scale: float,
    sliding_window: int | None,
    out: Tensor,
    sinks: Tensor | None = None,
    logits_soft_cap: float | None = None,
) -> None:
    """Attention of this step's tokens over the paged cache, which already holds their own keys and values.

    query, out              [num_tokens, num_heads, head_size]
    key_cache, value_cache  [num_blocks, block_size, num_kv_heads, head_size]; num_kv_heads divides num_heads
    sliding_window          a token sees itself and the sliding_window - 1 before it; None: all before it
    sinks                   [num_heads]: a score that every token gives to nothing at all; None: there is none
    logits_soft_cap         a score x becomes cap * tanh(x / cap); None: it stays. Not together with sinks
    Source: arXiv 2309.06180; sinks: arXiv 2309.17453; soft cap: arXiv 2408.00118.
    """
    assert sinks is None or logits_soft_cap is None
    variant = Variant(scale, sliding_window, sinks, logits_soft_cap)
    for group in plan.decodes:
        out[group.tokens] = _attend_decodes(query, key_cache, value_cache, group, plan, variant)
    for seq in plan.sequences:
        assert seq.block_ids is not None
        key = key_cache.index_select(0, seq.block_ids).flatten(0, 1)[: seq.seq_len]
        value = value_cache.index_select(0, seq.block_ids).flatten(0, 1)[: seq.seq_len]
        out[seq.start : seq.end] = _attend_sequence(query, key, value, seq, plan, variant)


def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: CpuAttentionPlan,
    *,
    scale: float,
    sliding_window: int | None,
    out: Tensor,
) -> None:
    """Attention inside each of the packed sequences, without a cache.

    query, out      [num_tokens, num_heads, head_size]
    key, value      [num_tokens, num_kv_heads, head_size]; num_kv_heads divides num_heads
    sliding_window  as in paged_attention; without causality, a token also sees as many after it
    """
    variant = Variant(scale, sliding_window)
    for seq in plan.sequences:
        rows = slice(seq.start, seq.end)
        out[rows] = _attend_sequence(query, key[rows], value[rows], seq, plan, variant)


def _attend_decodes(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    group: DecodeGroup,
    plan: CpuAttentionPlan,
    variant: Variant,
) -> Tensor:
    num_reqs, (num_kv_heads, head_size) = len(group.tokens), key_cache.shape[2:]
    key, value = (_gather(cache, group) for cache in (key_cache, value_cache))
    # The query heads that share a KV head stand where query tokens usually do: nothing is repeated.
    heads = query.index_select(0, group.tokens).view(num_reqs, num_kv_heads, -1, head_size)
    mask_key = (id(group), variant.sliding_window, query.dtype)
    if mask_key not in plan.masks:
        plan.masks[mask_key] = _decode_mask(group, variant.sliding_window, query.dtype)
    mask = plan.masks[mask_key]
    assert mask is not None
    if variant.sinks is not None:
        # [num_kv_heads, heads that share one, 1]: as the rows of `heads` above.
        key, value, mask = _with_sink(key, value, mask, variant.sinks.view(num_kv_heads, -1, 1))
    return _attend(heads, key, value, mask, variant).reshape(num_reqs, -1, head_size)


def _attend(
    heads: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, variant: Variant, *, is_causal: bool = False
) -> Tensor:
    """softmax(heads @ key.T * scale + mask) @ value, the scores capped first if the variant says so."""
    if variant.logits_soft_cap is None:
        return F.scaled_dot_product_attention(
            heads, key, value, attn_mask=mask, is_causal=is_causal, scale=variant.scale
        )
    assert not is_causal, "a capped score needs its mask"
    # torch's fused kernel has no cap: here the score matrix is built.
    scores = (heads @ key.transpose(-2, -1)).float().mul_(variant.scale)
    scores = scores.div_(variant.logits_soft_cap).tanh_().mul_(variant.logits_soft_cap)
    weights = (scores if mask is None else scores + mask).softmax(-1)
    return weights.to(value.dtype) @ value


def _with_sink(key: Tensor, value: Tensor, mask: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One more key and value, all zero, whose score is the sink: what is attended to it adds nothing.

    key, value  [..., num_keys, head_size]
    mask        broadcastable to the scores [..., num_queries, num_keys]
    sinks       broadcastable to [..., num_queries, 1]
    """
    key, value = (F.pad(x, (0, 0, 0, 1)) for x in (key, value))
    shape = torch.broadcast_shapes(mask.shape[:-1], sinks.shape[:-1])
    return key, value, torch.cat((mask.expand(*shape, -1), sinks.to(mask.dtype).expand(*shape, 1)), dim=-1)


def _gather(cache: Tensor, group: DecodeGroup) -> Tensor:
    """[num_reqs, num_kv_heads, context_len, head_size]: a copy of the group's slots of one cache."""
    slots = cache.index_select(0, group.block_ids).flatten(0, 1)
    # A block's former owner may have left infinities there, which no mask takes away: 0 * inf is NaN.
    slots.index_fill_(0, group.unwritten, 0)
    return slots.view(len(group.tokens), group.context_len, *cache.shape[2:]).transpose(1, 2)


def _decode_mask(group: DecodeGroup, sliding_window: int | None, dtype: torch.dtype) -> Tensor:
    """[num_reqs, 1, 1, context_len]: 0 where a request's token may look, -inf elsewhere."""
    slots = torch.arange(group.context_len)
    seq_lens = group.seq_lens[:, None]
    hidden = slots >= seq_lens
    if sliding_window is not None:
        hidden |= slots < seq_lens - sliding_window
    return _additive(hidden, dtype)[:, None, None, :]


def _attend_sequence(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seq: Sequence,
    plan: CpuAttentionPlan,
    variant: Variant,
) -> Tensor:
    """Attention of one request; key and value are [seq_len, num_kv_heads, head_size]."""
    num_kv_heads, head_size = key.shape[1:]
    num_tokens = seq.end - seq.start
    # KV heads stand where the batch usually does, so that sharing one among query heads needs no copy.
    heads = query[seq.start : seq.end].view(num_tokens, num_kv_heads, -1, head_size).permute(1, 2, 0, 3)
    key, value = (x.transpose(0, 1).unsqueeze(1).expand(-1, heads.shape[1], -1, -1) for x in (key, value))
    plain_causal = plan.causal and num_tokens == seq.seq_len and variant.is_plain
    mask = None if plain_causal else _sequence_mask(seq, plan, variant.sliding_window, query.dtype)
    if variant.sinks is not None:
        mask = query.new_zeros(num_tokens, seq.seq_len) if mask is None else mask
        key, value, mask = _with_sink(key, value, mask, variant.sinks.view(num_kv_heads, -1, 1, 1))
    attended = _attend(heads, key, value, mask, variant, is_causal=plain_causal)
    return attended.permute(2, 0, 1, 3).reshape(num_tokens, -1, head_size)


def _sequence_mask(
    seq: Sequence, plan: CpuAttentionPlan, sliding_window: int | None, dtype: torch.dtype
) -> Tensor | None:
    """[num_query_tokens, seq_len]: 0 where a token may look, -inf elsewhere; None where it may look anywhere."""
    if not plan.causal and sliding_window is None:
        return None
    mask_key = (id(seq), sliding_window, dtype)
    if mask_key not in plan.masks:
        plan.masks[mask_key] = _additive(hidden_from_sequence(seq, plan.causal, sliding_window), dtype)
    return plan.masks[mask_key]


def hidden_from_sequence(seq: Sequence, causal: bool, sliding_window: int | None = None) -> Tensor:
    """[num_query_tokens, seq_len] bool: which of a request's tokens each of its query tokens may not see."""
    positions = torch.arange(seq.seq_len - (seq.end - seq.start), seq.seq_len)[:, None]
    return _hidden(positions, torch.arange(seq.seq_len), causal, sliding_window)


def _hidden(query_pos: Tensor, key_pos: Tensor, causal: bool, sliding_window: int | None) -> Tensor:
    distance = query_pos - key_pos
    hidden = distance < 0 if causal else torch.zeros_like(distance, dtype=torch.bool)
    return hidden if sliding_window is None else hidden | (distance.abs() >= sliding_window)


def _additive(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
