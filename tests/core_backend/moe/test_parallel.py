"""Tokens reach the experts of other ranks and come back, in real processes, by every way."""

import os

import pytest

from tests.core_backend.moe.ranks import CASES, TOP_K, Outcome, run

# fp32 sums in another order; values stay below 8.
TOLERANCE = 2e-5


def check(outcomes: list[Outcome], num_ranks: int, ways: list[str]) -> None:
    assert len(outcomes) == num_ranks * len(ways) * len(CASES)
    assert {outcome.way for outcome in outcomes} == set(ways)
    for outcome in outcomes:
        assert outcome.max_difference < TOLERANCE, outcome


@pytest.fixture(scope="module", params=[2, 4])
def outcomes(request):
    outcomes = run(request.param, ["all_gather", "all_to_all"])
    check(outcomes, request.param, ["all_gather", "all_to_all"])
    return outcomes


def test_each_token_gets_what_its_experts_make_of_it_also_when_a_rank_has_none(outcomes):
    """On two ranks and on four; the fixture compares with the plain formula."""
    assert {outcome.case for outcome in outcomes} == set(CASES)


def test_an_exchange_sends_a_token_at_most_once_for_each_choice_and_back(outcomes):
    for case in CASES:
        exchanged = [outcome for outcome in outcomes if (outcome.case, outcome.way) == (case, "all_to_all")]
        num_tokens, token_bytes = exchanged[0].num_tokens, exchanged[0].token_bytes
        counts = len(exchanged) * 8 * 8  # each rank tells the others how many rows come, in int64
        assert sum(outcome.sent_bytes for outcome in exchanged) <= 2 * TOP_K * num_tokens * token_bytes + counts


def test_gathering_sends_every_token_to_every_rank_and_back(outcomes):
    gathered = [outcome for outcome in outcomes if (outcome.case, outcome.way) == ("equal", "all_gather")]
    others, num_tokens, token_bytes = len(gathered) - 1, gathered[0].num_tokens, gathered[0].token_bytes
    weights_and_ids = TOP_K * (4 + 4)
    sent = others * num_tokens * (2 * token_bytes + weights_and_ids)
    assert sum(outcome.sent_bytes for outcome in gathered) == sent


@pytest.mark.npu
@pytest.mark.timeout(300)
def test_the_fused_operators_give_the_same_on_an_a3():
    if "ASCEND_SIMULATE" not in os.environ:
        pytest.skip("a simulated 910_9391 is asked for, and there is a real NPU here")
    environment = {"ASCEND_SIMULATE": "910_9391", "ASCEND_SIMULATE_DEVICES": "2"}
    ways = ["mc2", "all_to_all", "all_gather"]
    check(run(2, ways, environment), 2, ways)
