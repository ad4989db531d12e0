import pytest
import torch

from core_backend.ops.cpu import compute_slot_mapping


def test_a_token_is_stored_in_its_slot(ops):
    caches = torch.zeros(2, 2, 2, 1, 1)  # key and value: 2 blocks of 2 slots
    ops.write_kv(torch.full((1, 1, 1), 5.0), torch.full((1, 1, 1), 6.0), *caches, slot_mapping=torch.tensor([3]))
    assert caches.flatten().tolist() == [0, 0, 0, 5, 0, 0, 0, 6]


def test_padding_slots_leave_the_cache_untouched(ops):
    caches = torch.zeros(2, 1, 2, 1, 1)
    ops.write_kv(*torch.ones(2, 2, 1, 1), *caches, slot_mapping=torch.tensor([1, -1]))
    assert caches.flatten().tolist() == [0, 1, 0, 1]


def test_keys_and_values_of_different_sizes(ops):
    """As latent attention has them; keys are a part of a larger tensor, as a projection leaves them."""
    key_cache, value_cache = torch.zeros(3, 2, 1, 4), torch.zeros(3, 2, 1, 2)
    projected = torch.arange(1.0, 13).view(2, 1, 6)
    key, value = projected.split((4, 2), -1)
    ops.write_kv(key, value, key_cache, value_cache, torch.tensor([5, 0]))
    for cache, new in ((key_cache, key), (value_cache, value)):
        assert torch.equal(cache.flatten(0, 1)[[5, 0]], new)
        assert cache.count_nonzero() == new.numel()


def test_a_cache_that_is_not_contiguous_is_refused_instead_of_copied(ops):
    caches = torch.zeros(2, 4, 2, 1, 1)[:, ::2].transpose(1, 2)
    with pytest.raises(RuntimeError, match="view"):
        ops.write_kv(*torch.ones(2, 1, 1, 1), *caches, slot_mapping=torch.tensor([0]))


def test_slots_follow_the_block_table_and_the_rest_is_padding():
    block_table = torch.tensor([[7, 2], [4, 0]], dtype=torch.int32)
    slot_mapping = torch.full((6,), 99, dtype=torch.int64)
    compute_slot_mapping(
        positions=torch.tensor([3, 4, 5, 0]),  # request 0 continues over the end of its first block
        query_start_loc=torch.tensor([0, 3, 4], dtype=torch.int32),
        block_table=block_table,
        block_size=4,
        slot_mapping=slot_mapping,
    )
    assert slot_mapping.tolist() == [7 * 4 + 3, 2 * 4, 2 * 4 + 1, 4 * 4, -1, -1]
