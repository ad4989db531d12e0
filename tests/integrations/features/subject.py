"""A chat model class as the features see it: how one is made, and what its engine is doing."""

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

# Words of a prompt. Every model is made with temperature=0 and max_tokens=16 unless a feature says otherwise.
QUESTION = "Tell me about Paris."  # a model of any size has more to say than MAX_TOKENS
MAX_TOKENS = 16
CONTEXT = 4096  # tokens; of the engine's longest request
LORA = "changed"  # the name of an adapter that the engine has loaded
ASK_FOR_A_CALL = "Use the tool add to add 2 and 3."
TOOL_TOKENS = 64  # enough for a call, or a City
# One pixel.
PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301"
        "0100c9fe92ef0000000049454e44ae426082"
    )
).decode()


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


class City(BaseModel):
    """A city."""

    name: str


@dataclass
class Subject:
    """A class of chat models, made by the neutral names of settings.

    make     of temperature, max_tokens, stop, seed, n, logprobs, top_logprobs, timeout; fields holds further fields
             of requests by vLLM's names
    running  how many requests the engine holds now
    num_tokens  of a text, by the engine's own tokenizer
    with_lora  the same model, asking the adapter named LORA
    thinking  a model of tests/thinking.py, held to thoughts and an answer
    """

    make: Callable[..., Any]
    running: Callable[[], int]
    num_tokens: Callable[[str], int]
    with_lora: Callable[[Any], Any] | None = None
    thinking: Callable[[], Any] | None = None

    @contextmanager
    def watched(self) -> Iterator["Watch"]:
        """Notes how many requests the engine holds in the meantime."""
        watch = Watch()
        done = threading.Event()

        def look() -> None:
            while not done.wait(0.005):
                watch.counts.append(self.running())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield watch
        finally:
            done.set()
            thread.join()

    def wait_until(self, is_so: Callable[[int], bool], seconds: float) -> bool:
        """Whether the number of requests is so within `seconds`."""
        deadline = time.monotonic() + seconds
        while not (so := is_so(self.running())) and time.monotonic() < deadline:
            time.sleep(0.02)
        return so


@dataclass
class Watch:
    """What was seen."""

    counts: list[int] = field(default_factory=list)

    @property
    def peak(self) -> int:
        return max(self.counts, default=0)


class NotRunError(Exception):
    """A feature cannot be asked of this class; says why."""


Feature = Callable[[Subject], None]


class Features(dict[str, Feature]):
    """By name, in the order in which they are written."""

    def named(self, name: str) -> Callable[[Feature], Feature]:
        """Decorator: the feature `name`."""

        def listed(check: Feature) -> Feature:
            self[name] = check
            return check

        return listed


def error_of(call: Callable[[], Any]) -> str:
    """The kind and the words of the error that `call` must raise."""
    try:
        answer = call()
    except Exception as error:  # whatever the maker of a class takes for fitting
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"no error, but {str(getattr(answer, 'content', answer))[:60]!r}")


def check_told(error: str, *words: str) -> None:
    """Fails unless `error` has one of `words`."""
    assert any(word in error for word in words), f"another error: {error}"


def check_told_of_cut(error: str) -> None:
    """Fails unless `error` says that there were too few tokens to answer with."""
    check_told(error, "max_tokens", "length limit", "LengthFinishReason")
