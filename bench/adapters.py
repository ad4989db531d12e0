"""`make bench-adapters`: what the adapters add to the engine's own time, and another maker's class beside ours.

All ask one embedded engine, in turn; each ratio is to the engine asked without an adapter in the same round. Writes the
table of docs/adapters.md.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import iterate_sync, run_sync
from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from bench.quiet import warn_if_busy
from bench.spread import spread
from tools.marked_table import with_table

MODEL = "smollm2-135m-instruct"
NUM_THREADS = len(os.sched_getaffinity(0))
# Without prefix caching: each is to compute all prompts.
ENGINE = {"dtype": "bfloat16", "enable_prefix_caching": False, "additional_config": {"num_threads": NUM_THREADS}}
NUM_TOKENS = 64  # of each answer
SAMPLING: dict[str, Any] = {"temperature": 0, "max_tokens": NUM_TOKENS}
FURTHER = {"ignore_eos": True}
NUM_ROUNDS, NUM_STREAMS, NUM_RIVAL_ROUNDS = 5, 30, 3
DOCUMENT = Path(__file__).parents[1] / "docs" / "adapters.md"
ENGINE_ALONE, LANGCHAIN, LLAMA_INDEX = "the engine alone", "`ChatAscend`", "`Ascend` of LlamaIndex"

Seconds = float
Way = Callable[[list[str]], Seconds]


def main() -> None:
    """Measure, print, write."""
    warn_if_busy(NUM_THREADS)
    backend = EmbeddedBackend(MODEL, **ENGINE)  # type: ignore[arg-type]  # settings of the engine
    run_sync(backend.info())
    batches = _in_turn(_batch_ways(backend), NUM_ROUNDS, [f"Tell me about the number {i}." for i in range(64)])
    firsts = _in_turn(_stream_ways(backend), NUM_STREAMS, ["Tell me about Paris."])
    rivals = _in_turn(_rivals(), NUM_RIVAL_ROUNDS, [f"Tell me about the number {i}." for i in range(32)])
    run_sync(backend.close())
    table = _table(batches, firsts, rivals)
    print(table)
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), "cost", table))


def _in_turn(ways: dict[str, Way], rounds: int, prompts: list[str]) -> dict[str, list[Seconds]]:
    """Every way's seconds, each round beginning with another way; the first round warms up and is not kept."""
    names = list(ways)
    seconds: dict[str, list[Seconds]] = {name: [] for name in names}
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            Progress("bench").step(f"{name}, {f'round {i} of {rounds}' if i else 'warm-up'}")
            took = ways[name](prompts)
            if i:
                seconds[name].append(took)
    return seconds


def _batch_ways(backend: EmbeddedBackend) -> dict[str, Way]:
    chat, llm = _chat_ascend(), _ascend()

    def engine_alone(prompts: list[str]) -> Seconds:
        async def all_at_once() -> None:
            await asyncio.gather(*(backend.chat(_body(prompt)) for prompt in prompts))

        return _seconds(lambda: asyncio.run(all_at_once()))

    def llama_index(prompts: list[str]) -> Seconds:
        from llama_index.core.base.llms.types import ChatMessage

        async def all_at_once() -> None:
            await asyncio.gather(*(llm.achat([ChatMessage(content=prompt)]) for prompt in prompts))

        return _seconds(lambda: asyncio.run(all_at_once()))

    return {
        ENGINE_ALONE: engine_alone,
        LANGCHAIN: lambda prompts: _seconds(lambda: chat.batch(prompts)),
        LLAMA_INDEX: llama_index,
    }


def _stream_ways(backend: EmbeddedBackend) -> dict[str, Way]:
    """Seconds until the first text."""
    from llama_index.core.base.llms.types import ChatMessage

    chat, llm = _chat_ascend(), _ascend()

    def engine_alone(prompts: list[str]) -> Seconds:
        chunks = iterate_sync(backend.chat_stream(_body(prompts[0])))
        # The last one has the usage, and no choices.
        return _first(choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"])

    return {
        ENGINE_ALONE: engine_alone,
        LANGCHAIN: lambda prompts: _first(chunk.content for chunk in chat.stream(prompts[0])),
        LLAMA_INDEX: lambda prompts: _first(
            response.delta for response in llm.stream_chat([ChatMessage(content=prompts[0])])
        ),
    }


def _rivals() -> dict[str, Way]:
    chat, other = _chat_ascend(), _chat_hugging_face()
    return {
        LANGCHAIN: lambda prompts: _seconds(lambda: chat.batch(prompts)),
        "`ChatHuggingFace`": lambda prompts: _seconds(lambda: other.batch(prompts)),
    }


def _chat_ascend() -> Any:
    from langchain_ascend import ChatAscend

    return ChatAscend(model=MODEL, **ENGINE, **SAMPLING, extra_body=FURTHER)


def _ascend() -> Any:
    from llama_index.llms.ascend import Ascend

    return Ascend(model=MODEL, **ENGINE, **SAMPLING, additional_kwargs=FURTHER)


def _chat_hugging_face() -> Any:
    import torch
    from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
    from transformers import pipeline

    torch.set_num_threads(NUM_THREADS)
    generate = pipeline(
        "text-generation",
        model=str(pull(CATALOGUE[MODEL], Progress(MODEL))),
        dtype=torch.bfloat16,
        do_sample=False,
        min_new_tokens=NUM_TOKENS,
        max_new_tokens=NUM_TOKENS,
        return_full_text=False,
    )
    return ChatHuggingFace(llm=HuggingFacePipeline(pipeline=generate, batch_size=32))


def _body(prompt: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], **SAMPLING, **FURTHER}


def _seconds(work: Callable[[], Any]) -> Seconds:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _first(texts: Iterable[Any]) -> Seconds:
    """Until the first text; the rest is read too, so that the engine is free afterwards."""
    started = time.perf_counter()
    times = [time.perf_counter() - started for text in texts if text]
    return times[0]


Times = dict[str, list[Seconds]]


def _table(batches: Times, firsts: Times, rivals: Times) -> str:
    heads = ("64 chats at once, s", "ratio", "time to first token, ms", "more than the engine alone, ms")
    lines = [f"| | {' | '.join(heads)} |", "|---" * 5 + "|"]
    for name in batches:
        ratios = [a / b for a, b in zip(batches[name], batches[ENGINE_ALONE], strict=True)]
        more = [1000 * (a - b) for a, b in zip(firsts[name], firsts[ENGINE_ALONE], strict=True)]
        first = [1000 * value for value in firsts[name]]
        cells = (spread(batches[name], 2), spread(ratios, 3), spread(first, 1), spread(more, 1))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| | 32 chats in a batch, s | `ChatAscend` is so many times as fast |", "|---" * 3 + "|"]
    for name, seconds in rivals.items():
        faster = [a / b for a, b in zip(seconds, rivals[LANGCHAIN], strict=True)]
        lines.append(f"| {name} | {spread(seconds, 2)} | {spread(faster, 1)} |")
    lines += ["", f"{MODEL}, bf16, {NUM_THREADS} threads, {NUM_TOKENS} tokens each; median (min - max)"]
    return (
        "\n".join(lines)
        + f" of {NUM_ROUNDS} rounds; {NUM_STREAMS} for the first token, {NUM_RIVAL_ROUNDS} of the batch.\n"
    )


if __name__ == "__main__":
    main()
