"""The context of prefilling requests, in stretches of bounded size."""

import pytest
import torch


@pytest.mark.parametrize("context_lens", [[], [0], [5], [3, 0, 12], [1, 1, 1], [40, 2]])
@pytest.mark.parametrize("max_tokens", [1, 4, 100])
def test_stretches_cover_each_context_once_in_order(context_lens, max_tokens):
    # Here and below not at the top: importing vLLM takes seconds.
    from core_backend.attention.mla_metadata import context_stretches

    stretches = context_stretches(context_lens, max_tokens)
    for request, length in enumerate(context_lens):
        assert [position for stretch in stretches for position in stretch[request]] == list(range(length))
    # At least one token of every request that has a context.
    bound = max(max_tokens, sum(length > 0 for length in context_lens))
    assert all(0 < sum(map(len, stretch)) <= bound for stretch in stretches)


def test_slots_are_those_of_the_block_table():
    from core_backend.attention.mla_metadata import slots_of

    block_table = torch.tensor([[7, 2], [5, 9]], dtype=torch.int32)
    slots = slots_of([range(1, 5), range(3, 4)], block_table, block_size=4)
    assert slots.tolist() == [29, 30, 31, 8, 23]


def test_the_two_parts_of_a_latent_cache_share_its_memory_and_not_each_others():
    from core_backend.attention.mla import split_latent_cache

    cache = torch.arange(2 * 4 * 6.0).view(2, 4, 6)
    latent, pe = split_latent_cache(cache, latent_size=4)
    assert latent.shape == (2, 4, 1, 4)
    assert pe.shape == (2, 4, 1, 2)
    assert sorted([*latent.flatten().tolist(), *pe.flatten().tolist()]) == cache.flatten().tolist()
    latent.zero_()
    assert (cache == 0).sum() == latent.numel()
