"""Speculative decoding changes when tokens are computed, not which."""

import os

import pytest

from tests.e2e.ways_of_speculating import NUM_NEW_TOKENS, WAYS
from tests.script import run_script

SPECULATING = [way for way in WAYS if way != "none"]
CHIPS = {
    "cpu": pytest.param({}, id="cpu", marks=[pytest.mark.engine, pytest.mark.timeout(300)]),
    "910B3": pytest.param(
        {"ASCEND_SIMULATE": "910B3", "ASCEND_SIMULATE_FLOAT32": "1"},
        id="910B3",
        marks=[pytest.mark.engine, pytest.mark.npu, pytest.mark.claim, pytest.mark.timeout(900)],
    ),
    "310P3": pytest.param(
        {"ASCEND_SIMULATE": "310P3", "ASCEND_SIMULATE_FLOAT32": "1"},
        id="310P3",
        marks=[pytest.mark.engine, pytest.mark.npu, pytest.mark.slow, pytest.mark.timeout(900)],
    ),
}


@pytest.fixture(scope="module", params=CHIPS.values())
def results(request, tmp_path_factory):
    """Way -> what the engine did on one device."""
    if "ASCEND_SIMULATE" in request.param and "ASCEND_SIMULATE" not in os.environ:
        pytest.skip("a simulated chip is asked for, and there is a real NPU here")
    lines = run_script("tests.e2e.speculating", str(tmp_path_factory.mktemp("models")), environment=request.param)
    simulated = request.param.get("ASCEND_SIMULATE", "cpu")
    assert all(simulated.lower() in line["device"].lower() for line in lines), lines[0]["device"]
    return {line["way"]: line for line in lines}


@pytest.mark.parametrize("way", SPECULATING)
def test_greedy_tokens_are_those_without_speculation(results, way):
    assert results[way]["greedy"] == results["none"]["greedy"]


@pytest.mark.parametrize("way", SPECULATING)
def test_greedy_requests_next_to_sampled_ones_keep_their_tokens_and_log_probabilities(results, way):
    assert results[way]["mixed"] == results["none"]["mixed"]
    for found, expected in zip(results[way]["logprobs"], results["none"]["logprobs"], strict=True):
        assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("way", SPECULATING)
def test_some_drafts_are_accepted_and_some_rejected(results, way):
    assert 0 < results[way]["num_accepted"] < results[way]["num_drafted"]


# vLLM draws sampled drafts without the request's seed (v1/spec_decode/llm_base_proposer.py: "TODO: Consider seeds").
@pytest.mark.parametrize("way", [way for way in SPECULATING if way != "sampled drafts"])
def test_sampling_with_a_seed_is_repeatable(results, way):
    assert results[way]["is_repeatable"]
    assert {len(tokens) for tokens in results[way]["seeded"]} == {NUM_NEW_TOKENS}
