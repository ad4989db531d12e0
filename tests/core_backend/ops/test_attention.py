"""Attention against a formula written token by token."""

import math
from itertools import pairwise

import pytest
import torch

from core_backend.ops import cpu
from core_backend.ops.cpu import attention

BLOCK_SIZE = 16
HEAD_SIZE = 32
# fp32: the order of additions differs. bf16: one rounding of the output, whose values stay below 4.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def attention_of_one_token(query, keys, values, scale, cap=None):
    """query [num_heads, head_size]; keys, values [visible, num_kv_heads, head_size]: one head at a time, in fp64."""
    group = query.shape[0] // keys.shape[1]
    rows = []
    for head, q in enumerate(query.double()):
        k, v = keys[:, head // group].double(), values[:, head // group].double()
        scores = k @ q * scale
        rows.append(torch.softmax(scores if cap is None else cap * torch.tanh(scores / cap), dim=0) @ v)
    return torch.stack(rows)


def visible(position, seq_len, causal, window):
    first = 0 if window is None else max(0, position - window + 1)
    last = position if causal else seq_len - 1
    if not causal and window is not None:
        last = min(seq_len - 1, position + window - 1)
    return slice(first, last + 1)


def expected_attention(query, keys, values, context_len, scale, causal=True, window=None, cap=None):
    """One request: query are the tokens after context_len; keys and values of the whole sequence."""
    rows = []
    for i, q in enumerate(query):
        seen = visible(context_len + i, len(keys), causal, window)
        rows.append(attention_of_one_token(q, keys[seen], values[seen], scale, cap))
    return torch.stack(rows)


class PagedBatch:
    """Requests of given (context, query) lengths, their keys and values written to shuffled blocks."""

    def __init__(self, ops, lengths, num_heads, num_kv_heads, dtype):
        torch.manual_seed(0)
        self.ops = ops
        self.lengths = lengths
        self.seq_lens = [context + new for context, new in lengths]
        self.sequences = [torch.randn(2, n, num_kv_heads, HEAD_SIZE).to(dtype) for n in self.seq_lens]
        blocks_per_request = [math.ceil(n / BLOCK_SIZE) for n in self.seq_lens]
        ids = (torch.randperm(sum(blocks_per_request) + 1) + 1).tolist()  # block 0 is nobody's
        self.block_table = torch.zeros(len(lengths), max(blocks_per_request) + 1, dtype=torch.int32)
        self.caches = torch.zeros(2, len(ids) + 1, BLOCK_SIZE, num_kv_heads, HEAD_SIZE, dtype=dtype)
        for row, (sequence, num_blocks) in enumerate(zip(self.sequences, blocks_per_request, strict=True)):
            mine = torch.tensor([ids.pop() for _ in range(num_blocks)])
            self.block_table[row, :num_blocks] = mine
            positions = torch.arange(sequence.shape[1])
            slots = mine[positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
            ops.write_kv(sequence[0], sequence[1], self.caches[0], self.caches[1], slots)
        self.query = torch.randn(sum(new for _, new in lengths), num_heads, HEAD_SIZE).to(dtype)
        self.query_start_loc = [0, *torch.tensor([new for _, new in lengths]).cumsum(0).tolist()]

    def run(self, scale, window=None, cap=None, sinks=None):
        plan = self.ops.plan_attention(
            self.query_start_loc, self.seq_lens, self.block_table, block_size=BLOCK_SIZE, causal=True
        )
        out = torch.full_like(self.query, float("nan"))
        self.ops.paged_attention(
            self.query,
            *self.caches,
            plan,
            scale=scale,
            sliding_window=window,
            out=out,
            logits_soft_cap=cap,
            sinks=sinks,
        )
        return out

    def expected(self, scale, window=None, cap=None):
        rows = []
        for i, (context, _) in enumerate(self.lengths):
            query = self.query[self.query_start_loc[i] : self.query_start_loc[i + 1]]
            rows.append(expected_attention(query, *self.sequences[i], context, scale, window=window, cap=cap))
        return torch.cat(rows)


BATCHES = {
    "one decode": [(5, 1)],
    "decodes of very different lengths": [(0, 1), (15, 1), (16, 1), (300, 1), (17, 1)],
    "prefill without context": [(0, 7), (0, 40)],
    "prefill with context": [(33, 9), (16, 16)],
    "everything at once": [(40, 1), (3, 1), (0, 20), (31, 5)],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [(4, 4), (4, 1), (6, 2), (9, 3)], ids=str)
@pytest.mark.parametrize("batch", BATCHES)
def test_paged_attention_is_the_formula(ops, batch, heads, dtype):
    requests = PagedBatch(ops, BATCHES[batch], *heads, dtype)
    torch.testing.assert_close(requests.run(0.2).double(), requests.expected(0.2), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("window", [1, 4, 16, 1000])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sliding_window_hides_what_is_further_back(ops, batch, window, dtype):
    requests = PagedBatch(ops, BATCHES[batch], 4, 2, dtype)
    torch.testing.assert_close(
        requests.run(0.2, window).double(), requests.expected(0.2, window), rtol=0, atol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_soft_cap_bounds_the_scores(ops, batch, window, dtype):
    requests = PagedBatch(ops, BATCHES[batch], 4, 2, dtype)
    actual, expected = requests.run(1.0, window, cap=2.0).double(), requests.expected(1.0, window, cap=2.0)
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE[dtype])
    assert (expected - requests.expected(1.0, window)).abs().max() > 0.1, "it makes a difference here"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", BATCHES)
def test_a_sink_takes_its_share_of_the_weight(ops, batch, dtype):
    requests = PagedBatch(ops, BATCHES[batch], 4, 2, dtype)
    sinks = torch.tensor([-1.0, 0.0, 1.0, 30.0], dtype=dtype)
    scores = torch.zeros(len(requests.query), 4, dtype=torch.float64)
    for i, (context, new) in enumerate(requests.lengths):
        for j in range(new):
            token, keys = requests.query_start_loc[i] + j, requests.sequences[i][0][: context + j + 1]
            for head in range(4):
                products = keys[:, head // 2].double() @ requests.query[token, head].double() * 0.2
                scores[token, head] = torch.logsumexp(products, 0)
    share = torch.sigmoid(scores - sinks.double()).unsqueeze(-1)
    actual = requests.run(0.2, sinks=sinks).double()
    torch.testing.assert_close(actual, requests.expected(0.2) * share, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("heads", [(96, 1), (71, 1), (14, 2)], ids=str)
def test_any_number_of_heads_may_share_keys(ops, heads):
    requests = PagedBatch(ops, [(140, 1), (0, 20), (200, 9)], *heads, torch.bfloat16)
    actual, expected = requests.run(0.2).double(), requests.expected(0.2)
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("left_there", [1e4, float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slots_past_a_request_do_not_reach_its_result(ops, dtype, left_there):
    """Blocks are reused without being cleared: what a former request left there must not be seen."""
    requests = PagedBatch(ops, [(3, 1), (20, 1), (40, 1), (7, 3)], 4, 2, dtype)
    clean = requests.run(0.2)
    rest = [torch.full((16, 2, HEAD_SIZE), left_there, dtype=dtype)] * 2
    for row, seq_len in enumerate(requests.seq_lens):
        last = requests.block_table[row, (seq_len - 1) // BLOCK_SIZE]
        slots = torch.arange((seq_len - 1) % BLOCK_SIZE + 1, BLOCK_SIZE) + last * BLOCK_SIZE
        ops.write_kv(*(x[: len(slots)] for x in rest), *requests.caches, slots)
        # What a row names past its own blocks is another request's, or nobody's.
        requests.block_table[row, (seq_len - 1) // BLOCK_SIZE + 1 :] = requests.block_table[3, 0]
    torch.testing.assert_close(requests.run(0.2), clean)


def test_a_large_batch_is_gathered_in_parts(monkeypatch):
    monkeypatch.setattr(attention, "MAX_GATHERED_SLOTS", 64)
    requests = PagedBatch(cpu, [(20, 1)] * 7, 4, 2, torch.float32)
    plan = cpu.plan_attention(
        requests.query_start_loc, requests.seq_lens, requests.block_table, block_size=16, causal=True
    )
    assert [len(group.tokens) for group in plan.decodes] == [1] * 7
    torch.testing.assert_close(requests.run(0.2).double(), requests.expected(0.2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("head_size", [32, 40, 72])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_varlen_attention_stays_inside_each_sequence(ops, dtype, head_size, causal, window):
    torch.manual_seed(0)
    lengths = [1, 12, 150, 33]
    starts = [0, 1, 13, 163, 196]
    query, key, value = (torch.randn(196, heads, head_size).to(dtype) for heads in (4, 2, 2))
    plan = ops.plan_attention(starts, lengths, None, block_size=BLOCK_SIZE, causal=causal)
    out = torch.full_like(query, float("nan"))
    ops.varlen_attention(query, key, value, plan, scale=0.2, sliding_window=window, out=out)
    for start, end in pairwise(starts):
        rows = slice(start, end)
        expected = expected_attention(query[rows], key[rows], value[rows], 0, 0.2, causal, window)
        torch.testing.assert_close(out[rows].double(), expected, rtol=0, atol=TOLERANCE[dtype])
