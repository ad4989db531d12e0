"""Multi-head latent attention: keys and values are projections of one small latent vector per token.

Source: arXiv 2405.04434.
"""

import torch
from torch import Tensor

from core_backend.ops.cpu.attention import CpuAttentionPlan, DecodeGroup, Sequence, hidden_from_sequence


def mla_paged_attention(
    query_latent: Tensor,
    query_pe: Tensor,
    latent_cache: Tensor,
    pe_cache: Tensor,
    plan: CpuAttentionPlan,
    *,
    scale: float,
    out: Tensor,
) -> None:
    """Attention of queries that were projected into the latent space, over the paged latent cache; causal.

    query_latent, out  [num_tokens, num_heads, latent_size]
    query_pe           [num_tokens, num_heads, rope_size]
    latent_cache       [num_blocks, block_size, 1, latent_size]: keys without position, and the values
    pe_cache           [num_blocks, block_size, 1, rope_size]: the keys' rotary part
    """
    query = torch.cat((query_latent, query_pe), dim=-1).float()
    for seq in _sequences(plan):
        latent, pe = (
            cache.index_select(0, seq.block_ids).flatten(0, 2)[: seq.seq_len] for cache in (latent_cache, pe_cache)
        )
        key = torch.cat((latent, pe), dim=-1).float()
        scores = torch.einsum("qnd,kd->nqk", query[seq.start : seq.end], key) * scale
        weights = scores.masked_fill(hidden_from_sequence(seq, causal=True), float("-inf")).softmax(-1)
        out[seq.start : seq.end] = torch.einsum("nqk,kd->qnd", weights, latent.float()).to(out.dtype)


def mla_varlen_attention(
    query: Tensor,
    query_pe: Tensor,
    key: Tensor,
    key_pe: Tensor,
    value: Tensor,
    *,
    query_start_loc: list[int],
    kv_start_loc: list[int],
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attention inside packed sequences with unprojected keys: a prompt's own tokens, or a chunk of its context.

    query            [num_tokens, num_heads, head_size]; query_pe [num_tokens, num_heads, rope_size]
    key              [num_kv_tokens, num_heads, head_size]; key_pe [num_kv_tokens, num_heads, rope_size]
    value            [num_kv_tokens, num_heads, value_size]
    query_start_loc  num_reqs + 1 positions; kv_start_loc likewise
    causal           the last query token sees all keys, the one before it one less
    returns          [num_tokens, num_heads, value_size], and [num_tokens, num_heads] fp32: the logarithm of the sum
                     of exponentiated scores, for merge_attention
    """
    queries, keys = torch.cat((query, query_pe), -1).float(), torch.cat((key, key_pe), -1).float()
    out = query.new_zeros(*query.shape[:2], value.shape[-1])
    lse = torch.full(query.shape[:2], float("-inf"))
    for i in range(len(query_start_loc) - 1):
        rows = slice(*query_start_loc[i : i + 2])
        keys_of = slice(*kv_start_loc[i : i + 2])
        if rows.start == rows.stop or keys_of.start == keys_of.stop:
            continue
        scores = torch.einsum("qnd,knd->qnk", queries[rows], keys[keys_of]) * scale
        if causal:
            num_queries, num_keys = scores.shape[0], scores.shape[2]
            last_visible = torch.arange(num_queries)[:, None] + num_keys - num_queries
            scores = scores.masked_fill((torch.arange(num_keys) > last_visible)[:, None], float("-inf"))
        lse[rows] = scores.logsumexp(-1)
        out[rows] = torch.einsum("qnk,knd->qnd", scores.softmax(-1), value[keys_of].float()).to(out.dtype)
    return out, lse


def merge_attention(outs: list[Tensor], lses: list[Tensor]) -> Tensor:
    """Attention over several sets of keys, from the attention over each.

    outs     each [num_tokens, num_heads, value_size]
    lses     each [num_tokens, num_heads] fp32; -inf: that set had no key for this token
    returns  [num_tokens, num_heads, value_size]; 0 for a token that had no key in any set
    """
    weights = torch.stack(lses).softmax(0).nan_to_num(0.0).unsqueeze(-1)
    return (torch.stack(outs).float() * weights).sum(0).to(outs[0].dtype)


def _sequences(plan: CpuAttentionPlan) -> list[Sequence]:
    """All requests of the step, one by one."""
    return [*plan.sequences, *(seq for group in plan.decodes for seq in _one_by_one(group))]


def _one_by_one(group: DecodeGroup) -> list[Sequence]:
    blocks = group.block_ids.view(len(group.tokens), -1)
    rows = zip(group.tokens.tolist(), group.seq_lens.tolist(), blocks, strict=True)
    return [Sequence(token, token + 1, seq_len, block_ids) for token, seq_len, block_ids in rows]
