"""What is measured: W1, W2 and W3, on made-up prompts of exact lengths."""

from dataclasses import dataclass
from typing import Protocol

Prompt = list[int]


@dataclass(frozen=True)
class Workload:
    """`num_requests` prompts of `prompt_len` tokens each, `output_len` tokens generated for each."""

    name: str
    unit: str
    num_requests: int
    prompt_len: int
    output_len: int

    def prompts(self, seed: int) -> list[Prompt]:
        """Made-up token ids, other ones for every seed."""
        start = 100 + 7919 * seed
        return [
            [(start + 131 * request + 17 * i * (request + 1)) % 40_000 + 100 for i in range(self.prompt_len)]
            for request in range(self.num_requests)
        ]


W1 = Workload("W1: 32 requests, 128 in, 128 out", "output tokens/s", 32, 128, 128)
W2 = Workload("W2: one stream, 128 in, 128 out", "decode tokens/s", 1, 128, 128)
W2_FIRST = Workload("W2: time to first token", "ms", 1, 128, 128)
W3 = Workload("W3: one prompt of 2,048", "prefill tokens/s", 1, 2048, 1)


@dataclass(frozen=True)
class StreamTimes:
    """Seconds from the request to its first token, and to its last."""

    first: float
    last: float


class Contestant(Protocol):
    """A way to run the model."""

    name: str

    def generate(self, prompts: list[Prompt], output_len: int) -> float:
        """Seconds to generate exactly `output_len` tokens for every prompt, all given at once."""
        ...

    def stream(self, prompt: Prompt, output_len: int) -> StreamTimes:
        """The times of one prompt's first and last token."""
        ...


def measure(contestant: Contestant, seed: int) -> dict[str, float]:
    """One value for each workload, in its unit."""
    seconds = contestant.generate(W1.prompts(seed), W1.output_len)
    times = contestant.stream(W2.prompts(seed)[0], W2.output_len)
    prefill = contestant.generate(W3.prompts(seed), W3.output_len)
    return {
        W1.name: W1.num_requests * W1.output_len / seconds,
        W2.name: (W2.output_len - 1) / (times.last - times.first),
        W2_FIRST.name: 1000 * times.first,
        W3.name: W3.prompt_len / prefill,
    }
