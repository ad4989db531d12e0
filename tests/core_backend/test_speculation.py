"""What speculative decoding does between two steps, against loops over requests."""

import pytest
import torch

from core_backend import speculation

NUM_DRAFTS = [2, 0, 3, 1]  # of four requests
CU = torch.tensor(NUM_DRAFTS).cumsum(0).int()
BONUS = torch.tensor([[90], [91], [92], [93]]).int()
DRAFTS = torch.tensor([5, 6, 7, 8, 9, 4]).int()


def empty_output():
    return torch.full((4, 4), speculation.REJECTED, dtype=torch.int32)


def test_every_token_gets_its_requests_value_and_zeros_are_replaced():
    output = torch.empty(6)
    speculation.expand(output, torch.tensor([0.5, 9, 0, 2]), CU, 0, 1)
    assert output.tolist() == [0.5, 0.5, 1, 1, 1, 2]


def test_greedy_requests_keep_drafts_up_to_the_first_wrong_one_and_get_a_bonus_after_all_right_ones():
    most_likely = torch.tensor([5, 6, 7, 1, 9, 4])  # the second draft of the third request is wrong
    output = empty_output()
    speculation.accept_greedy(output, CU, DRAFTS, most_likely, BONUS, None)
    assert output.tolist() == [[5, 6, 90, -1], [91, -1, -1, -1], [7, 1, -1, -1], [4, 93, -1, -1]]


def test_requests_that_are_not_greedy_are_left_alone():
    output = empty_output()
    is_greedy = torch.tensor([False, True, False, True])
    speculation.accept_greedy(output, CU, DRAFTS, DRAFTS.long(), BONUS, is_greedy)
    assert output.tolist() == [[-1] * 4, [91, -1, -1, -1], [-1] * 4, [4, 93, -1, -1]]


def test_given_rates_decide_instead_of_the_model():
    output = empty_output()
    uniform = torch.tensor([0.1, 0.6, 0.1, 0.4, 0.9, 0.1])
    rates = torch.tensor([0.5, 0.5, 0.5])
    speculation.accept_greedy(output, CU, DRAFTS, torch.full((6,), 3), BONUS, None, uniform, rates)
    assert output.tolist() == [[5, 3, -1, -1], [91, -1, -1, -1], [7, 8, 3, -1], [4, 93, -1, -1]]


@pytest.mark.parametrize("has_draft_probs", [True, False])
def test_sampled_tokens_follow_the_target_distribution(has_draft_probs):
    """Many requests of one draft token: the first token of each is a sample of the target, whatever the draft was."""
    torch.manual_seed(0)
    num_reqs, target = 40_000, torch.tensor([0.1, 0.2, 0.3, 0.4])
    draft = torch.tensor([0.4, 0.3, 0.2, 0.1]) if has_draft_probs else torch.tensor([0.0, 1.0, 0.0, 0.0])
    drafts = torch.multinomial(draft, num_reqs, replacement=True).int()
    target_probs, draft_probs = target.expand(num_reqs, -1), draft.expand(num_reqs, -1) if has_draft_probs else None
    cu = torch.arange(1, num_reqs + 1).int()
    recovered, output = torch.empty_like(drafts), torch.full((num_reqs, 2), -1, dtype=torch.int32)
    inverse = torch.empty(num_reqs, 4).exponential_().reciprocal()
    speculation.recover_tokens(recovered, cu, drafts, draft_probs, target_probs, inverse)
    bonus, uniform = torch.full((num_reqs, 1), 9).int(), torch.rand(num_reqs, dtype=torch.float64)
    is_greedy = torch.zeros(num_reqs, dtype=torch.bool)
    speculation.accept_sampled(output, cu, drafts, draft_probs, target_probs, bonus, recovered, uniform, is_greedy)
    shares = output[:, 0].long().bincount(minlength=4) / num_reqs
    assert torch.allclose(shares, target, atol=0.01)
    assert set(output[:, 1].tolist()) == {-1, 9}, "a bonus follows where the draft was kept"
    assert (recovered[output[:, 1] == -1] == output[:, 0][output[:, 1] == -1]).all()


def test_the_next_token_is_the_last_valid_one_or_the_backup():
    sampled = torch.tensor([[5, 6, -1], [7, -1, -1], [1, 2, 3], [-1, -1, -1], [8, 400, -1]]).int()
    discarded = torch.tensor([False, False, True, False, False])
    backup = torch.tensor([10, 11, 12, 13, 14, 15]).int()
    next_tokens, counts = torch.empty(5).int(), torch.empty(5).int()
    speculation.choose_next_tokens(sampled, discarded, backup, next_tokens, counts, vocab_size=320)
    assert next_tokens.tolist() == [6, 7, 12, 13, 8]
    assert counts.tolist() == [2, 1, 0, 0, 1]


def test_the_last_accepted_token_stands_before_the_rejected_ones():
    query_start_loc = torch.tensor([0, 3, 8, 12, 14])  # the second request computes its prompt: no drafts
    where, rejected = torch.empty(4).int(), torch.empty(4).int()
    speculation.find_last_accepted(CU, torch.tensor([1, 1, 4, 2]), query_start_loc, where, rejected)
    assert rejected.tolist() == [2, 0, 0, 0]
    assert where.tolist() == [0, 7, 11, 13]


def test_a_draft_moves_to_the_next_slot_and_stops_at_the_end():
    positions, seq_lens = torch.tensor([3, 9, 15]), torch.tensor([4, 10, 16]).int()
    block_table = torch.tensor([[5, 6, 0, 0], [2, 3, 4, 0], [8, 9, 10, 11]]).int()
    clamped, slots = torch.empty(3).long(), torch.empty(4).long()
    speculation.advance_draft(positions, block_table, seq_lens, clamped, slots, block_size=4, max_model_len=16)
    assert clamped.tolist() == [4, 10, 0]
    assert slots.tolist() == [6 * 4, 4 * 4 + 2, -1, -1]
    assert seq_lens.tolist() == [5, 11, 1]


@pytest.mark.parametrize(("num_new_tokens", "shift"), [(1, False), (3, False), (3, True)])
def test_the_draft_models_input_is_accepted_tokens_the_next_one_masks_and_rejected_ones(num_new_tokens, shift):
    begins, accepted, ends = [0, 4, 5], [2, 1, 3], [4, 5, 9]  # of three requests: 2 of 4, 1 of 1, 3 of 4 tokens count
    tokens, positions = torch.arange(20, 29).int(), torch.tensor([7, 8, 9, 10, 0, 30, 31, 32, 33])
    next_tokens, size = torch.tensor([90, 91, 92]).int(), 9 + 3 * (num_new_tokens - shift)
    expected_ids, expected_positions, expected_new, moved = [], [], [], []
    for begin, count, end, next_token in zip(begins, accepted, ends, next_tokens.tolist(), strict=True):
        moved += range(len(expected_ids), len(expected_ids) + end - begin)
        kept = tokens[begin : begin + count].tolist()[shift:]
        new = [next_token, *[77] * (num_new_tokens - 1)]
        expected_new += range(len(expected_ids) + len(kept), len(expected_ids) + len(kept) + len(new))
        first = positions[begin].item()
        expected_ids += [*kept, *new, *[0] * (end - begin - count)]
        expected_positions += [*range(first, first + len(kept) + len(new)), *[0] * (end - begin - count)]
    ids, place = torch.empty(size + 2).int(), torch.empty(size + 2).long()
    is_rejected, is_masked = torch.ones(size + 2).bool(), torch.ones(size + 2).bool()
    new_indices, mapping = torch.empty(3 * num_new_tokens).int(), torch.empty(9).int()
    speculation.make_room_for_drafts(
        tokens,
        positions,
        next_tokens,
        ids,
        place,
        is_rejected,
        is_masked,
        new_indices,
        mapping,
        torch.tensor([0, 4, 5, 9]),
        torch.tensor([1, 4, 7]),
        padding_token_id=0,
        parallel_drafting_token_id=77,
        num_new_tokens=num_new_tokens,
        shift_input_ids=shift,
    )
    assert ids[:size].tolist() == expected_ids
    assert place[:size].tolist() == expected_positions
    assert is_rejected[:size].tolist() == [token == 0 for token in expected_ids]
    assert is_masked[:size].tolist() == [token == 77 for token in expected_ids]
    assert new_indices.tolist() == expected_new
    if shift:
        assert mapping.tolist() == moved


@pytest.mark.parametrize("method", ["medusa", "dflash", "ngram_gpu", "suffix", "eagle3", "mtp"])
def test_a_way_of_drafting_that_does_not_run_here_is_refused_by_name(method):
    from core_backend.platform.base import check_speculation

    with pytest.raises(NotImplementedError, match=rf"by {method} is refused.*ngram, draft_model, eagle"):
        check_speculation(method)
