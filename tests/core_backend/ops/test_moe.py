"""The matrix products of experts against the formula, in fp64."""

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
