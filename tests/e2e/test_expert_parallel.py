"""Experts spread over processes give the tokens of one process, whichever way tokens take."""

import os

import pytest

from tests.e2e.expert_parallel import RankResult, run

pytestmark = [pytest.mark.engine, pytest.mark.timeout(420)]

FAMILIES = ["Mixtral", "Qwen3-MoE", "DeepSeek-V3"]


def check(results: list[RankResult], num_ranks: int, ways: list[str], families: list[str]) -> None:
    seen = {(result.family, result.way, result.rank) for result in results}
    assert seen == {(family, way, rank) for family in families for way in ways for rank in range(num_ranks)}
    for result in results:
        assert result.num_requests > 0
        assert result.num_different == 0, result


FOUR_RANKS = pytest.param(2, 2, marks=pytest.mark.slow)


# Ranks that share tensors; ranks that have requests of their own, and idle steps when they are done; and both.
@pytest.mark.parametrize(
    ("tensor_parallel", "data_parallel"), [pytest.param(2, 1, marks=pytest.mark.claim), (1, 2), FOUR_RANKS]
)
def test_experts_on_several_ranks(tmp_path, tensor_parallel, data_parallel):
    ways = ["all_gather", "all_to_all"]
    results = run(tmp_path, tensor_parallel, data_parallel, ways, FAMILIES)
    check(results, tensor_parallel * data_parallel, ways, FAMILIES)


def check_balanced(results: list[RankResult], families: list[str]) -> None:
    check(results, 2, ["all_gather+balanced", "all_to_all+balanced"], families)
    assert all(result.num_rearranged > 1 for result in results)


@pytest.mark.claim
def test_redundant_experts_move_between_ranks_and_tokens_stay_the_same(tmp_path):
    families = ["Qwen3-MoE", "DeepSeek-V3"]
    check_balanced(run(tmp_path, 1, 2, ["all_gather+balanced", "all_to_all+balanced"], families), families)


@pytest.mark.npu
@pytest.mark.claim
@pytest.mark.parametrize(
    ("tensor_parallel", "data_parallel"), [pytest.param(2, 1, marks=pytest.mark.slow), (1, 2), FOUR_RANKS]
)
def test_experts_on_several_npus_by_the_fused_operators(tmp_path, tensor_parallel, data_parallel):
    if "ASCEND_SIMULATE" not in os.environ:
        pytest.skip("a simulated 910_9391 is asked for, and there is a real NPU here")
    families = [f"{name}, wide" for name in FAMILIES]
    num_ranks = tensor_parallel * data_parallel
    environment = {"ASCEND_SIMULATE": "910_9391", "ASCEND_SIMULATE_DEVICES": str(num_ranks)}
    check(run(tmp_path, tensor_parallel, data_parallel, ["mc2"], families, environment), num_ranks, ["mc2"], families)
