import pytest
import torch

from core_backend.ops.cpu import compute_slot_mapping, write_kv


def test_a_token_is_stored_in_its_slot():
    caches = torch.zeros(2, 2, 2, 1, 1)  # key and value: 2 blocks of 2 slots
    write_kv(torch.full((1, 1, 1), 5.0), torch.full((1, 1, 1), 6.0), *caches, slot_mapping=torch.tensor([3]))
    assert caches.flatten().tolist() == [0, 0, 0, 5, 0, 0, 0, 6]


def test_padding_slots_leave_the_cache_untouched():
    caches = torch.zeros(2, 1, 2, 1, 1)
    write_kv(*torch.ones(2, 2, 1, 1), *caches, slot_mapping=torch.tensor([1, -1]))
    assert caches.flatten().tolist() == [0, 1, 0, 1]


def test_a_cache_that_is_not_contiguous_is_refused_instead_of_copied():
    caches = torch.zeros(2, 4, 2, 1, 1)[:, ::2].transpose(1, 2)
    with pytest.raises(RuntimeError, match="view"):
        write_kv(*torch.ones(2, 1, 1, 1), *caches, slot_mapping=torch.tensor([0]))


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
