"""From logical experts to the physical ones that serve them."""

import torch


def test_every_choice_goes_to_a_replica_of_its_expert_and_tokens_are_spread_over_them():
    # Not at the top: importing vLLM takes seconds.
    from core_backend.moe.routing import replica_of_each

    replicas = torch.tensor([[0, 4, 5], [1, -1, -1], [2, 3, -1]])
    num_replicas = torch.tensor([3, 1, 2])
    topk_ids = torch.rand(600, 3, generator=torch.Generator().manual_seed(0)).argsort(1)[:, :2].int()
    physical = replica_of_each(topk_ids, replicas, num_replicas)
    assert physical.dtype == torch.int32
    for logical, serving in ((0, {0, 4, 5}), (1, {1}), (2, {2, 3})):
        chosen = physical[topk_ids == logical]
        assert set(chosen.tolist()) == serving
        # No replica gets more than half again its share.
        assert torch.bincount(chosen).max() < 1.5 * len(chosen) / len(serving)
