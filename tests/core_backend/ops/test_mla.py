"""Latent attention against a formula written token by token."""

import math

import pytest
import torch

from tests.core_backend.ops.test_attention import BATCHES, BLOCK_SIZE, TOLERANCE, attention_of_one_token

SIZES = [(512, 64), (64, 32), (24, 8)]  # latent, rotary: DeepSeek's, smaller ones, and some that no kernel takes
DTYPES = [torch.float32, torch.bfloat16]


def cache_of(sequences):
    """Their rows in blocks in a shuffled order, and the table of blocks. What nobody wrote is infinite."""
    torch.manual_seed(1)
    num_blocks = [math.ceil(len(sequence) / BLOCK_SIZE) for sequence in sequences]
    ids = torch.randperm(sum(num_blocks)).split(num_blocks)
    cache = torch.full((sum(num_blocks), BLOCK_SIZE, sequences[0].shape[1]), math.inf, dtype=sequences[0].dtype)
    table = torch.zeros(len(sequences), max(num_blocks), dtype=torch.int32)
    for row, (mine, sequence) in enumerate(zip(ids, sequences, strict=True)):
        table[row, : len(mine)] = mine
        positions = torch.arange(len(sequence))
        cache[mine[positions // BLOCK_SIZE], positions % BLOCK_SIZE] = sequence
    return cache.unsqueeze(2), table


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("num_heads", [1, 3, 16, 50])
@pytest.mark.parametrize("batch", BATCHES)
def test_paged_latent_attention_is_the_formula(ops, batch, num_heads, sizes, dtype):
    torch.manual_seed(0)
    latent_size = sizes[0]
    contexts, new = zip(*BATCHES[batch], strict=True)
    sequences = [torch.randn(sum(lens), sum(sizes)).to(dtype) for lens in BATCHES[batch]]
    cache, table = cache_of(sequences)
    query = torch.randn(sum(new), num_heads, sum(sizes)).to(dtype)
    starts = [0, *torch.tensor(new).cumsum(0).tolist()]
    plan = ops.plan_attention(starts, [len(x) for x in sequences], table, block_size=BLOCK_SIZE, causal=True)
    out = torch.full((len(query), num_heads, latent_size), math.nan, dtype=dtype)
    query_parts, caches = query.split(sizes, -1), [x.contiguous() for x in cache.split(sizes, -1)]
    ops.mla_paged_attention(*query_parts, *caches, plan, scale=0.1, out=out)
    rows = []
    for start, context, count, sequence in zip(starts, contexts, new, sequences, strict=False):
        for i in range(count):
            seen = sequence[: context + i + 1, None]
            rows.append(attention_of_one_token(query[start + i], seen, seen[..., :latent_size], 0.1))
    torch.testing.assert_close(out.double(), torch.stack(rows), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(128, 64, 128), (32, 16, 40)], ids=str)
@pytest.mark.parametrize("causal", [True, False])
def test_attention_with_unfolded_keys_is_the_formula(ops, causal, sizes, dtype):
    """Requests without keys and without queries among them."""
    torch.manual_seed(0)
    num_heads, (nope_size, rope_size, value_size) = 3, sizes
    lens = [(5, 5), (70, 200), (3, 0), (0, 4), (1, 33)]
    starts, kv_starts = ([0, *torch.tensor([row[i] for row in lens]).cumsum(0).tolist()] for i in (0, 1))
    query = torch.randn(starts[-1], num_heads, nope_size + rope_size).to(dtype)
    # As a layer unfolds them: keys and values beside each other, one rotary part for all heads.
    unfolded = torch.randn(kv_starts[-1], num_heads, nope_size + value_size).to(dtype)
    key, value = unfolded.split((nope_size, value_size), -1)
    key_pe = torch.randn(kv_starts[-1], 1, rope_size).to(dtype).expand(-1, num_heads, -1)
    query_parts = query.split((nope_size, rope_size), -1)
    settings = {"query_start_loc": starts, "kv_start_loc": kv_starts, "causal": causal, "scale": 0.1}
    out, lse = ops.mla_varlen_attention(*query_parts, key, key_pe, value, **settings)
    keys = torch.cat((key, key_pe), -1)
    for i, (num_queries, num_keys) in enumerate(lens):
        for j in range(num_queries):
            last = num_keys - num_queries + j if causal else num_keys - 1
            seen, row = slice(kv_starts[i], kv_starts[i] + last + 1), starts[i] + j
            if last < 0:
                assert lse[row].tolist() == [-math.inf] * num_heads
                assert not out[row].any()
                continue
            expected = attention_of_one_token(query[row], keys[seen], value[seen], 0.1)
            torch.testing.assert_close(out[row].double(), expected, rtol=0, atol=TOLERANCE[dtype])
            scores = torch.einsum("nd,knd->nk", query[row].double(), keys[seen].double()) * 0.1
            torch.testing.assert_close(lse[row].double(), scores.logsumexp(-1), rtol=1e-4, atol=1e-3)
