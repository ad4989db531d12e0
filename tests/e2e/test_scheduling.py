"""What vLLM's scheduler promises, on our attention and KV cache: the tokens are Hugging Face's, whatever it does."""

import asyncio
import random
import time

import pytest

from ascend_adapters.bridge import run_sync
from tests.e2e.prompts import complete_together, greedy_body, metric, prompts_of, token_ids

# fp32 on 2 cores: 2,048 tokens one by one take minutes, and Hugging Face's reference as long.
pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


@pytest.mark.claim
def test_32_prompts_together_give_the_tokens_of_hugging_face(engine, prompts, expected):
    assert complete_together(engine, prompts) == expected


def test_eight_of_them_do_so_too(engine, prompts, expected):
    """In every run."""
    assert complete_together(engine, prompts[::4]) == expected[::4]


@pytest.mark.claim
def test_one_by_one_they_give_the_same_tokens(engine, prompts, expected):
    """Every fourth of them: this is what takes longest."""
    for prompt, tokens in list(zip(prompts, expected, strict=True))[::4]:
        assert token_ids(run_sync(engine.complete(greedy_body(prompt)))) == tokens


@pytest.mark.claim
def test_in_any_order_they_give_the_same_tokens(engine, prompts, expected):
    order = list(range(len(prompts)))
    random.Random(0).shuffle(order)
    answers = complete_together(engine, [prompts[i] for i in order])
    assert answers == [expected[i] for i in order]


@pytest.mark.claim
def test_requests_that_do_not_fit_together_are_preempted_and_finish_with_the_same_tokens(
    tight_engine, prompts, expected
):
    assert complete_together(tight_engine, prompts) == expected
    assert metric(tight_engine, "vllm:num_preemptions_total") > 0


@pytest.mark.claim
def test_a_prompt_of_4000_tokens_in_chunks_of_512_gives_the_same_tokens(tight_engine, reference):
    (prompt,) = prompts_of([4000], reference)
    assert len(prompt) == 4000
    answer = run_sync(tight_engine.complete(greedy_body(prompt)))
    assert token_ids(answer) == reference.greedy(prompt)


def test_a_shared_prefix_is_computed_once(engine, reference):
    tokens = prompts_of([2300], reference)[0]
    prefix, endings = tokens[1250:2250], (tokens[:20], tokens[30:50])
    first, second = (run_sync(engine.complete(greedy_body(prefix + ending, 8, "shared"))) for ending in endings)
    assert first["usage"]["prompt_tokens_details"] is None  # vLLM's way to say that nothing was cached
    assert 1000 - 16 <= second["usage"]["prompt_tokens_details"]["cached_tokens"] <= 1000  # whole blocks of 16
    assert token_ids(second) == reference.greedy(prefix + endings[1], 8)


@pytest.mark.claim
def test_a_short_request_finishes_long_before_the_batch_it_joined(engine, prompts):
    async def join_a_batch():
        started = time.monotonic()
        batch = [asyncio.create_task(engine.complete(greedy_body(prompt, 128))) for prompt in prompts[-16:]]
        await asyncio.sleep(1)
        await engine.complete(greedy_body(prompts[0], 4))
        short = time.monotonic() - started
        await asyncio.gather(*batch)
        return short, time.monotonic() - started

    short, whole = run_sync(join_a_batch())
    assert short < whole / 2
