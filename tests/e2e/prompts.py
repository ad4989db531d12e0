"""Prompts for the engine, and what Hugging Face makes of them."""

import asyncio
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from tests.references import reference

if TYPE_CHECKING:
    import torch

TEXT = (Path(__file__).parents[2] / "LICENSE").read_text()
NUM_NEW_TOKENS = 64
BATCH = 8


@dataclass(frozen=True)
class Reference:
    """The model in Hugging Face, in fp32. Its tokens are kept (tests/references.py)."""

    folder: Path

    def tokenize(self, text: str) -> list[int]:
        return _tokenizer(self.folder).encode(text, add_special_tokens=False)

    def logits(self, tokens: list[int]) -> "torch.Tensor":
        """[num_tokens, vocab_size]: what the model makes of every token and those before it."""
        import torch

        with torch.inference_mode():
            logits: torch.Tensor = _model(self.folder)(torch.tensor([tokens])).logits[0]
        return logits

    def logprobs_of_each(self, texts: list[list[int]]) -> list[list[float]]:
        """The log probability of every token but the first, given those before it."""
        return reference("transformers", ["logprobs", texts], [self.folder], lambda: [*map(self._logprobs, texts)])

    def _logprobs(self, text: list[int]) -> list[float]:
        import torch

        logprobs = self.logits(text)[:-1].log_softmax(-1)
        return logprobs.gather(1, torch.tensor(text[1:])[:, None])[:, 0].tolist()

    def greedy(self, prompt: list[int], num_tokens: int = NUM_NEW_TOKENS) -> list[int]:
        """The tokens that Hugging Face generates after `prompt`, the end token excluded from choice."""
        return self.greedy_of_each([prompt], num_tokens)[0]

    def greedy_of_each(self, prompts: list[list[int]], num_tokens: int = NUM_NEW_TOKENS) -> list[list[int]]:
        """The same for several prompts."""
        question = ["greedy", num_tokens, prompts]
        return reference("transformers", question, [self.folder], lambda: self._greedy_of_each(prompts, num_tokens))

    def _greedy_of_each(self, prompts: list[list[int]], num_tokens: int) -> list[list[int]]:
        """Several at a time, padded on the left: in fp32 the padding changes no token."""
        import torch

        answers = []
        for first in range(0, len(prompts), BATCH):
            batch = prompts[first : first + BATCH]
            longest = max(map(len, batch))
            padded = [[0] * (longest - len(prompt)) + prompt for prompt in batch]
            mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch]
            with torch.inference_mode():
                ids = _model(self.folder).generate(
                    torch.tensor(padded),
                    attention_mask=torch.tensor(mask),
                    do_sample=False,
                    min_new_tokens=num_tokens,
                    max_new_tokens=num_tokens,
                )
            answers += ids[:, longest:].tolist()
        return answers


@cache
def _model(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@cache
def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def prompts_of(lengths: list[int], reference: Reference) -> list[list[int]]:
    """A stretch of the licence, twice over, for each length, each from another place."""
    tokens = 2 * reference.tokenize(TEXT)
    return [tokens[17 * i : 17 * i + length] for i, length in enumerate(lengths)]


def greedy_body(prompt: list[int], num_tokens: int = NUM_NEW_TOKENS, cache_salt: str | None = None) -> dict[str, Any]:
    """A completion request that generates exactly `num_tokens` of the most likely tokens.

    It finds cached prefixes only of requests with the same `cache_salt`: by default, of none.
    """
    return {
        "cache_salt": cache_salt or uuid4().hex,
        "prompt": prompt,
        "temperature": 0,
        "max_tokens": num_tokens,
        "min_tokens": num_tokens,
        "return_token_ids": True,
    }


def complete_together(
    backend: EmbeddedBackend, prompts: list[list[int]], num_tokens: int = NUM_NEW_TOKENS
) -> list[list[int]]:
    """The tokens of every prompt, all submitted at once."""

    async def all_of_them() -> list[dict[str, Any]]:
        return await asyncio.gather(*(backend.complete(greedy_body(prompt, num_tokens)) for prompt in prompts))

    return [token_ids(answer) for answer in run_sync(all_of_them())]


def token_ids(answer: dict[str, Any]) -> list[int]:
    ids: list[int] = answer["choices"][0]["token_ids"]
    return ids


def metric(backend: EmbeddedBackend, name: str) -> float:
    """The sum of a metric's samples."""
    lines = run_sync(backend.metrics()).splitlines()
    samples = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " "))]
    assert samples, f"the engine has no metric {name}"
    return sum(samples)
