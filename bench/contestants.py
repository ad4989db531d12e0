"""Who is measured: our embedded engine, and Hugging Face generate in this process."""

import asyncio
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import iterate_sync, run_sync
from bench.workloads import Prompt, StreamTimes


class Embedded:
    """The product as a user gets it: requests over the unix socket to the engine's processes."""

    name = "ascend-adapters"

    def __init__(self, model: str, num_threads: int, **settings: Any) -> None:
        """settings  of the engine, besides those that make it comparable."""
        # Without prefix caching: a repeated prompt must be computed again, as its rival computes it.
        shared: dict[str, Any] = {"enable_prefix_caching": False, "additional_config": {"num_threads": num_threads}}
        self._backend = EmbeddedBackend(model, dtype="bfloat16", **shared, **settings)
        run_sync(self._backend.info())

    def generate(self, prompts: list[Prompt], output_len: int) -> float:
        async def all_at_once() -> None:
            await asyncio.gather(*(self._backend.complete(_body(prompt, output_len)) for prompt in prompts))

        started = time.perf_counter()
        run_sync(all_at_once())
        return time.perf_counter() - started

    def stream(self, prompt: Prompt, output_len: int) -> StreamTimes:
        started = time.perf_counter()
        stamps = [time.perf_counter() for _ in iterate_sync(self._backend.complete_stream(_body(prompt, output_len)))]
        # The last piece holds the usage; the one before it, the last token.
        return StreamTimes(stamps[0] - started, stamps[-2] - started)

    def close(self) -> None:
        """Stop the engine."""
        run_sync(self._backend.close())


def _body(prompt: Prompt, output_len: int) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": output_len, "ignore_eos": True, "temperature": 0}


class HuggingFace:
    """transformers' generate: one batch, greedy, with its KV cache."""

    name = "Hugging Face generate"

    def __init__(self, folder: str, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def generate(self, prompts: list[Prompt], output_len: int, streamer: Any = None) -> float:
        ids = torch.tensor(prompts)
        started = time.perf_counter()
        with torch.inference_mode():
            self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=output_len,
                max_new_tokens=output_len,
                streamer=streamer,
            )
        return time.perf_counter() - started

    def stream(self, prompt: Prompt, output_len: int) -> StreamTimes:
        stamps = _Stamps()
        started = time.perf_counter()
        self.generate([prompt], output_len, streamer=stamps)
        # The first call brings the prompt.
        return StreamTimes(stamps.times[1] - started, stamps.times[-1] - started)


class _Stamps:
    """A streamer that notes when tokens come. Source: transformers.generation.streamers.BaseStreamer."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: object) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass
