"""What a request may ask of sampling, against plain formulas on Hugging Face's logits."""

import pytest
import torch

from ascend_adapters.bridge import run_sync
from tests.e2e.prompts import token_ids

pytestmark = pytest.mark.engine

TEXT = "The quick brown fox jumps over the lazy dog. The quick brown"
NUM_TOKENS = 12


@pytest.fixture(scope="module")
def prompt(reference):
    return reference.tokenize(TEXT)


@pytest.fixture(scope="module")
def ask(engine, prompt):
    def complete(**fields):
        body = {"prompt": prompt, "temperature": 0, "max_tokens": NUM_TOKENS, "min_tokens": NUM_TOKENS}
        return run_sync(engine.complete({**body, "return_token_ids": True, **fields}))

    return complete


def greedy(reference, prompt, change):
    """Greedy tokens by Hugging Face's logits after change(logits, prompt, generated)."""
    generated: list[int] = []
    for _ in range(NUM_TOKENS):
        logits = reference.logits(prompt + generated)[-1].clone()
        logits[[0, 2]] = float("-inf")  # the tokens that end an answer, which min_tokens excludes
        generated.append(int(change(logits, prompt, generated).argmax()))
    return generated


def counts_in(tokens, logits):
    return torch.bincount(torch.tensor(tokens, dtype=torch.long), minlength=len(logits))


def test_presence_penalty(ask, reference, prompt):
    expected = greedy(reference, prompt, lambda logits, _, out: logits - 1.5 * (counts_in(out, logits) > 0))
    assert token_ids(ask(presence_penalty=1.5)) == expected


def test_frequency_penalty(ask, reference, prompt):
    expected = greedy(reference, prompt, lambda logits, _, out: logits - 1.2 * counts_in(out, logits))
    assert token_ids(ask(frequency_penalty=1.2)) == expected


def test_repetition_penalty_counts_the_prompt_too(ask, reference, prompt):
    def penalized(logits, before, out):
        seen = counts_in(before + out, logits) > 0
        return torch.where(seen, torch.where(logits > 0, logits / 1.4, logits * 1.4), logits)

    expected = greedy(reference, prompt, penalized)
    assert token_ids(ask(repetition_penalty=1.4)) == expected
    assert expected != token_ids(ask())


def test_logit_bias_adds_to_the_logits(ask, reference, prompt):
    first = token_ids(ask())[0]

    def biased(logits, _, out):
        logits[first] -= 100
        return logits

    assert token_ids(ask(logit_bias={str(first): -100})) == greedy(reference, prompt, biased)


def test_bad_words_do_not_appear(engine):
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
    free, bound = (
        run_sync(engine.chat({**body, **fields, "max_tokens": 16}))["choices"][0]["message"]["content"]
        for fields in ({}, {"bad_words": ["Paris"]})
    )
    assert "Paris" in free
    assert "Paris" not in bound


def test_a_min_p_of_one_leaves_only_the_most_likely_token(ask):
    assert token_ids(ask(temperature=1.0, min_p=1.0, seed=3)) == token_ids(ask())


def test_min_p_hides_what_is_less_likely_than_its_share_of_the_most_likely(ask, reference, prompt):
    prompt = prompt[:1]  # much may follow "The"
    probs = reference.logits(prompt)[-1].softmax(-1)
    allowed = set((probs >= 0.1 * probs.max()).nonzero().flatten().tolist())
    answers = ask(prompt=prompt, temperature=1.0, min_p=0.1, seed=1, n=20, max_tokens=1, min_tokens=1)["choices"]
    drawn = {choice["token_ids"][0] for choice in answers}
    assert drawn <= allowed
    assert len(drawn) > 1


def test_log_probabilities_of_the_answer_and_of_the_prompt(ask, reference, prompt):
    answer = ask(logprobs=3, prompt_logprobs=0)["choices"][0]
    tokens = prompt + answer["token_ids"]
    logprobs = reference.logits(tokens).log_softmax(-1)
    found = answer["logprobs"]["token_logprobs"]
    expected = [logprobs[i - 1, tokens[i]].item() for i in range(1, len(tokens))]
    assert found == pytest.approx(expected[len(prompt) - 1 :], abs=1e-3)
    given = [
        entry[str(token)]["logprob"] for entry, token in zip(answer["prompt_logprobs"][1:], prompt[1:], strict=True)
    ]
    assert given == pytest.approx(expected[: len(prompt) - 1], abs=1e-3)
    best = logprobs[len(prompt) - 1].topk(3).values.tolist()
    assert sorted(answer["logprobs"]["top_logprobs"][0].values(), reverse=True) == pytest.approx(best, abs=1e-3)


def test_several_answers_to_one_prompt_differ_and_repeat_with_the_seed(ask):
    first, again = ([choice["token_ids"] for choice in ask(n=3, temperature=1.0, seed=11)["choices"]] for _ in range(2))
    assert first == again
    assert len({tuple(tokens) for tokens in first}) == 3


def test_a_seeded_prompt_longer_than_a_step_is_sampled_as_ever(tight_engine, reference):
    """What is sampled between the chunks of a prompt is discarded, and does not advance the request's generator."""
    tokens = reference.tokenize(TEXT)
    long = (tokens * 60)[:700]  # steps have 512 tokens
    body = {"prompt": long, "temperature": 1.0, "seed": 4, "max_tokens": 6, "min_tokens": 6, "return_token_ids": True}
    # The second finds the prompt in the prefix cache, and computes it in one step.
    first, again = (token_ids(run_sync(tight_engine.complete({**body, "cache_salt": "seeded"}))) for _ in range(2))
    assert first == again
