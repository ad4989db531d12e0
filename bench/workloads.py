"""What is measured, on made-up prompts of exact lengths: batches, one stream, a shared prefix, and sentences."""

import random
from dataclasses import dataclass
from typing import Protocol

Prompt = list[int]
TOKEN_IDS = range(100, 40_000)  # of every prompt


@dataclass(frozen=True)
class Metric:
    """What a workload measures."""

    name: str
    unit: str
    less_is_better: bool = False


class Contestant(Protocol):
    """A way to run a model."""

    name: str
    workloads: "tuple[Workload, ...]"

    def generate(self, prompts: list[Prompt], output_len: int) -> float:
        """Seconds to generate exactly `output_len` tokens for every prompt, all given at once."""
        ...

    def stream(self, prompt: Prompt, output_len: int) -> tuple[float, float]:
        """Seconds from the request to one prompt's first token, and to its last."""
        ...

    def embed(self, texts: list[str]) -> float:
        """Seconds until every text has its vector."""
        ...


class Workload(Protocol):
    """Something to do, and what is measured meanwhile."""

    def measure(self, contestant: Contestant, seed: int) -> dict[Metric, float]:
        """The values of one round; every seed has other prompts."""
        ...


@dataclass(frozen=True)
class Batch:
    """Prompts that are all given at once."""

    metric: Metric
    num_requests: int
    prompt_len: int
    output_len: int
    counts_prompts: bool = False  # tokens per second of the prompts, not of the answers

    def measure(self, contestant: Contestant, seed: int) -> dict[Metric, float]:
        prompts = made_up_prompts(f"{self.metric.name} {seed}", self.num_requests, self.prompt_len)
        seconds = contestant.generate(prompts, self.output_len)
        tokens = self.prompt_len if self.counts_prompts else self.output_len
        return {self.metric: self.num_requests * tokens / seconds}


@dataclass(frozen=True)
class Stream:
    """One prompt, whose tokens come one by one."""

    decode: Metric
    first: Metric
    prompt_len: int
    output_len: int

    def measure(self, contestant: Contestant, seed: int) -> dict[Metric, float]:
        (prompt,) = made_up_prompts(f"{self.decode.name} {seed}", 1, self.prompt_len)
        first, last = contestant.stream(prompt, self.output_len)
        return {self.decode: (self.output_len - 1) / (last - first), self.first: 1000 * first}


@dataclass(frozen=True)
class SharedPrefix:
    """Prompts that begin alike, with a beginning that was asked for once before."""

    metric: Metric
    num_requests: int
    shared_len: int
    own_len: int
    output_len: int

    def measure(self, contestant: Contestant, seed: int) -> dict[Metric, float]:
        (shared,) = made_up_prompts(f"{self.metric.name} {seed}", 1, self.shared_len)
        own = made_up_prompts(f"{self.metric.name} {seed} own", self.num_requests + 1, self.own_len)
        contestant.generate([shared + own[-1]], 1)
        seconds = contestant.generate([shared + tokens for tokens in own[:-1]], self.output_len)
        return {self.metric: self.num_requests * self.output_len / seconds}


@dataclass(frozen=True)
class Sentences:
    """Texts whose vectors are wanted, all given at once."""

    metric: Metric
    num_texts: int
    num_words: int

    def measure(self, contestant: Contestant, seed: int) -> dict[Metric, float]:
        texts = made_up_texts(f"{self.metric.name} {seed}", self.num_texts, self.num_words)
        return {self.metric: self.num_texts / contestant.embed(texts)}


def made_up_prompts(seed: str, count: int, length: int) -> list[Prompt]:
    """Token ids at random, the same for the same seed."""
    generator = random.Random(seed)
    return [[generator.choice(TOKEN_IDS) for _ in range(length)] for _ in range(count)]


def made_up_texts(seed: str, count: int, num_words: int) -> list[str]:
    """Words at random, most of them one token."""
    generator = random.Random(seed)
    return [" ".join(generator.choice(WORDS) for _ in range(num_words)) for _ in range(count)]


WORDS = (
    *("the", "a", "of", "and", "to", "in", "that", "was", "with", "as", "for", "from", "by", "time", "river", "house"),
    *("city", "water", "light", "paper", "music", "garden", "engine", "winter", "summer", "train", "letter", "number"),
    *(
        "question",
        "answer",
        "story",
        "people",
        "children",
        "teacher",
        "doctor",
        "market",
        "island",
        "mountain",
        "forest",
    ),
    *(
        "bridge",
        "village",
        "window",
        "picture",
        "table",
        "morning",
        "evening",
        "long",
        "small",
        "great",
        "early",
        "late",
    ),
    *(
        "cold",
        "warm",
        "red",
        "green",
        "blue",
        "made",
        "found",
        "gave",
        "went",
        "came",
        "said",
        "asked",
        "wrote",
        "built",
    ),
)

W1 = Batch(Metric("W1: 32 requests, 128 in, 128 out", "output tokens/s"), 32, 128, 128)
W1_64 = Batch(Metric("W1 with 64 requests", "output tokens/s"), 64, 128, 128)
W2 = Stream(
    Metric("W2: one stream, 128 in, 128 out", "decode tokens/s"),
    Metric("W2: time to first token", "ms", less_is_better=True),
    128,
    128,
)
W3 = Batch(Metric("W3: one prompt of 2,048", "prompt tokens/s"), 1, 2048, 1, counts_prompts=True)
W4 = SharedPrefix(Metric("W4: 16 requests, 1,024 shared", "output tokens/s"), 16, 1024, 32, 32)
W5_SHORT = Sentences(Metric("W5: 256 texts of 12 words", "texts/s"), 256, 12)
W5_LONG = Sentences(Metric("W5: 64 texts of 200 words", "texts/s"), 64, 200)
