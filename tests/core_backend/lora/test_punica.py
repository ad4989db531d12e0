"""What LoRA adds to a layer's output, next to the plain formula for each row."""

import pytest
import torch

from core_backend.device import current_device
from core_backend.lora.rows import AdapterRows

NUM_SLOTS, RANK, SIZE = 3, 4, 6
OUTPUTS = (5, 2)
ID_OF_SLOT = [7, None, 9]  # one slot is free
LORA_IDS = [9, 0, 7, 0, 9, 9]  # of each token
VOCAB_SIZE = 11
# Source: PunicaWrapperBase.update_metadata takes the number of slots plus one.
MAX_LORAS = NUM_SLOTS + 1


def wrapper_for(lora_ids, sampled=(), device="cpu"):
    # Not at the top: importing vLLM takes seconds.
    from vllm.lora.layers import LoRAMapping

    from core_backend.lora.punica import AscendPunicaWrapper

    wrapper = AscendPunicaWrapper(16, 8, device)
    wrapper.update_metadata(LoRAMapping(tuple(lora_ids), tuple(sampled)), ID_OF_SLOT, MAX_LORAS, VOCAB_SIZE)
    return wrapper


def weights(*shape, seed=0):
    return torch.randn(NUM_SLOTS, 1, *shape, generator=torch.Generator().manual_seed(seed))


def expected(y, x, lora_a, lora_b, lora_ids, begin=0):
    """y[:, slice] += x @ a.T @ b.T, row by row."""
    y = y.clone()
    for row, lora_id in enumerate(lora_ids):
        if lora_id:
            slot = ID_OF_SLOT.index(lora_id)
            y[row, begin : begin + lora_b.shape[2]] += lora_b[slot, 0] @ (lora_a[slot, 0] @ x[row])
    return y


@pytest.fixture
def x():
    return torch.randn(len(LORA_IDS), SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def y():
    return torch.randn(len(LORA_IDS), sum(OUTPUTS), generator=torch.Generator().manual_seed(2))


LORA_A = tuple(weights(RANK, SIZE, seed=3 + i) for i in range(2))
LORA_B = tuple(weights(size, RANK, seed=5 + i) for i, size in enumerate(OUTPUTS))


def both_slices(y, x, lora_ids):
    for i, begin in enumerate((0, OUTPUTS[0])):
        y = expected(y, x, LORA_A[i], LORA_B[i], lora_ids, begin)
    return y


def test_rows_are_sorted_by_slot_and_those_without_an_adapter_are_left_out():
    rows = AdapterRows.of([2, -1, 0, -1, 2, 2], 3, "cpu")
    assert rows.index.tolist() == [2, 0, 4, 5]
    assert rows.counts.tolist() == [1, 0, 3]


def test_a_linear_layer_adds_each_rows_adapter_and_leaves_the_other_rows_as_they_are(x, y):
    want = both_slices(y, x, LORA_IDS)
    before = y.clone()
    wrapper_for(LORA_IDS).add_lora_linear(y, x, LORA_A, LORA_B, 1.0, OUTPUTS)
    torch.testing.assert_close(y, want)
    assert torch.equal(y[[1, 3]], before[[1, 3]]), "to the last bit"


def test_shrinking_and_expanding_apart_gives_the_same(x, y):
    """As layers do that exchange what is between the two with other ranks: then it is wider than the rank."""
    want = both_slices(y, x, LORA_IDS)
    wrapper = wrapper_for(LORA_IDS)
    buffers = torch.zeros(2, len(x), RANK)
    wrapper.add_shrink(buffers, x, LORA_A, 1.0)
    gathered = torch.cat([buffers, torch.full_like(buffers, torch.nan)], dim=-1)
    wrapper.add_expand(y, gathered, LORA_B, OUTPUTS)
    torch.testing.assert_close(y, want)


def test_expanding_begins_where_it_is_told_and_replaces_where_it_may_not_add(x):
    wrapper = wrapper_for(LORA_IDS)
    buffers = torch.ones(1, len(x), RANK)
    y = torch.ones(len(x), 1 + OUTPUTS[0])
    wrapper.add_expand(y, buffers, LORA_B[:1], OUTPUTS[:1], offset_start=1, add_inputs=False)
    assert y[:, 0].tolist() == [1.0] * len(x)
    torch.testing.assert_close(y[2, 1:], LORA_B[0][0, 0].sum(1))
    assert y[1].tolist() == [1.0] * len(y[1])


def test_the_embedding_adds_what_each_tokens_adapter_has_for_it():
    table = torch.randn(NUM_SLOTS, VOCAB_SIZE, RANK)
    lora_b = weights(OUTPUTS[0], RANK)
    tokens = torch.tensor([0, 1, 2, 3, 10, 5])
    wrapper = wrapper_for(LORA_IDS)
    # What vLLM's VocabParallelEmbeddingWithLoRA does.
    found = table.flatten(0, 1)[tokens + wrapper._embeddings_indices[1][: len(tokens)]]
    y = torch.zeros(len(tokens), OUTPUTS[0])
    wrapper.add_lora_embedding(y, found, lora_b, add_input=True)
    for row, (token, lora_id) in enumerate(zip(tokens, LORA_IDS, strict=True)):
        slot = ID_OF_SLOT.index(lora_id) if lora_id else None
        want = torch.zeros(OUTPUTS[0]) if slot is None else lora_b[slot, 0] @ table[slot, token]
        torch.testing.assert_close(y[row], want)


def test_logits_take_the_adapters_of_the_rows_that_are_sampled_and_leave_padding_alone(x):
    sampled = LORA_IDS[:4]
    lora_b = weights(VOCAB_SIZE, RANK)
    logits = torch.zeros(4, VOCAB_SIZE + 2)
    want = expected(logits, x, LORA_A[0], lora_b, sampled)
    wrapper_for([7] * 6, sampled).add_lora_logits(logits, x[:4], LORA_A[0], lora_b, 1.0)
    torch.testing.assert_close(logits, want)
    assert logits[:, VOCAB_SIZE:].tolist() == [[0.0, 0.0]] * 4


@pytest.mark.parametrize("lora_id", [0, 9])
def test_logits_of_a_prompt_all_take_the_adapter_of_its_request(x, lora_id):
    lora_b = weights(VOCAB_SIZE, RANK)
    logits = torch.zeros(6, VOCAB_SIZE)
    want = expected(logits, x, LORA_A[0], lora_b, [lora_id] * 6)
    wrapper = wrapper_for(LORA_IDS, sampled=[7])
    with wrapper.logits_of(ID_OF_SLOT.index(lora_id) if lora_id else -1):
        wrapper.add_lora_logits(logits, x, LORA_A[0], lora_b, 1.0)
    torch.testing.assert_close(logits, want)
    sampled = torch.zeros(1, VOCAB_SIZE)
    wrapper.add_lora_logits(sampled, x[:1], LORA_A[0], lora_b, 1.0)
    torch.testing.assert_close(sampled, expected(torch.zeros(1, VOCAB_SIZE), x, LORA_A[0], lora_b, [7]))


@pytest.mark.parametrize("lora_ids", [[0, 0, 0, 0, 0, 0], [9, 9, 9, 9, 9, 9]])
def test_steps_of_one_kind_only(x, y, lora_ids):
    want = both_slices(y, x, lora_ids)
    wrapper_for(lora_ids).add_lora_linear(y, x, LORA_A, LORA_B, 1.0, OUTPUTS)
    torch.testing.assert_close(y, want)


def test_rows_past_the_step_have_no_adapter(y):
    """A step may be padded, to as many rows as a graph or another rank has."""
    x = torch.ones(len(y), SIZE)
    before = y.clone()
    wrapper_for([9]).add_lora_linear(y, x, LORA_A, LORA_B, 1.0, OUTPUTS)
    assert not torch.equal(y[0], before[0])
    assert torch.equal(y[1:], before[1:])


def test_weights_of_another_precision_and_a_scale(x, y):
    halved = both_slices(y, x, LORA_IDS) / 2 + y / 2
    wrapper_for(LORA_IDS).add_lora_linear(
        y, x, tuple(a.bfloat16() for a in LORA_A), tuple(b.bfloat16() for b in LORA_B), 0.5, OUTPUTS
    )
    torch.testing.assert_close(y, halved, atol=0.2, rtol=0.05)


@pytest.mark.npu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_npu_gives_the_same_in_its_own_precision(x, y, dtype):
    if current_device().hardware.operator_set != "npu":
        pytest.skip("LoRA is refused on this chip")
    results = []
    for device in ("npu", "cpu"):
        wrapper = wrapper_for(LORA_IDS, device=device)
        out = y.to(device, dtype)
        lora_a, lora_b = ([weight.to(device, dtype) for weight in both] for both in (LORA_A, LORA_B))
        wrapper.add_lora_linear(out, x.to(device, dtype), lora_a, lora_b, 1.0, OUTPUTS)
        results.append(out.cpu())
    torch.testing.assert_close(*results, atol=6e-2, rtol=2e-2)
    assert torch.equal(results[0][[1, 3]], y.to(dtype)[[1, 3]]), "to the last bit"
