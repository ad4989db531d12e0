"""Experts: which tokens they get, their matrix products, and the way back, against formulas in fp64."""

import pytest
import torch

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(64, 96), (10, 64), (64, 40), (48, 320)], ids=str)
@pytest.mark.parametrize("counts", [[3, 0, 40, 1], [0, 0, 0, 0], [0, 700, 0, 5]], ids=str)
@pytest.mark.parametrize("is_packed", [True, False])
def test_every_expert_multiplies_its_own_rows(ops, is_packed, counts, sizes, dtype):
    torch.manual_seed(0)
    input_size, output_size = sizes
    x = torch.randn(sum(counts) + 2, input_size).to(dtype)  # of the last rows, nothing is said
    dense = (torch.randn(len(counts), output_size, input_size) / input_size**0.5).to(dtype)
    weight = ops.pack_expert_weight(dense) if is_packed else dense.transpose(1, 2)
    assert weight.shape == (len(counts), input_size, output_size)
    out = ops.grouped_matmul(x, weight, torch.tensor(counts))
    begin = 0
    for expert, count in enumerate(counts):
        expected = x[begin : begin + count].double() @ dense[expert].double().T
        rows = out[begin : begin + count].double()
        torch.testing.assert_close(rows, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
        begin += count


def test_a_packed_expert_can_be_moved(ops):
    """Between ranks, experts are copied whole, whatever their layout."""
    dense = torch.randn(2, 64, 32).bfloat16()
    weight = ops.pack_expert_weight(dense)
    moved = torch.empty_like(weight)
    moved[0], moved[1] = weight[1], weight[0]
    x = torch.randn(4, 32).bfloat16()
    before = ops.grouped_matmul(x, weight, torch.tensor([0, 4]))
    assert torch.equal(ops.grouped_matmul(x, moved, torch.tensor([4, 0])), before)


TOKENS, EXPERTS, TOP_K = 37, 16, 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("renormalize", [True, False])
def test_each_token_goes_to_its_best_experts(ops, renormalize, scoring, dtype):
    torch.manual_seed(0)
    logits = torch.randn(TOKENS, EXPERTS).to(dtype)
    weights, ids = ops.route_topk(logits, TOP_K, scoring=scoring, renormalize=renormalize, scaling_factor=2.5)
    scores = logits.double().softmax(-1) if scoring == "softmax" else logits.double().sigmoid()
    best = scores.topk(TOP_K, dim=-1).values
    expected = best / best.sum(-1, keepdim=True) if renormalize else best
    assert (weights.dtype, ids.dtype) == (torch.float32, torch.int32)
    torch.testing.assert_close(scores.gather(1, ids.long()), best)
    torch.testing.assert_close(weights.double(), 2.5 * expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("local", [(0, EXPERTS), (5, 6)], ids=str)
def test_rows_come_sorted_by_expert_and_go_back_to_their_tokens(ops, local, dtype):
    torch.manual_seed(0)
    first, num_local = local
    x = torch.randn(TOKENS, 48).to(dtype)
    ids = torch.stack([torch.randperm(EXPERTS)[:TOP_K] for _ in range(TOKENS)]).int()
    weights = torch.rand(TOKENS, TOP_K)
    routed = ops.route_to_experts(x, ids, num_experts=EXPERTS, first=first, num_local=num_local)
    assert routed.counts.tolist() == [int((ids == first + expert).sum()) for expert in range(num_local)]
    begin = 0
    for expert, count in enumerate(routed.counts.tolist()):
        tokens = (ids == first + expert).any(1)
        assert torch.equal(routed.rows[begin : begin + count], x[tokens])
        begin += count
    factors = torch.arange(1.0, num_local + 1).repeat_interleave(routed.counts)
    made = torch.full_like(routed.rows, float("nan"))
    made[:begin] = (routed.rows[:begin] * factors.unsqueeze(1)).to(dtype)
    combined = ops.combine_experts(made, routed.row_of, routed.counts, weights)
    expected = torch.zeros(TOKENS, 48, dtype=torch.double)
    for token in range(TOKENS):
        for choice, expert in enumerate(ids[token].tolist()):
            if first <= expert < first + num_local:
                expected[token] += weights[token, choice].double() * x[token].double() * (expert - first + 1)
    torch.testing.assert_close(combined.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
