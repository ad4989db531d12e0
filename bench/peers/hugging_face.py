"""transformers' generate: one batch, greedy, with its KV cache."""

import sys
import time
from importlib.metadata import version
from typing import Any

import torch
from answering import answer
from transformers import AutoModelForCausalLM


class HuggingFace:
    """Prompts of token ids, exact lengths, greedy."""

    def __init__(self, folder: str, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def versions(self) -> dict[str, str]:
        return {"transformers": version("transformers"), "torch": version("torch")}

    def generate(self, prompts: list[list[int]], output_len: int, streamer: Any = None) -> float:
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

    def stream(self, prompt: list[int], output_len: int) -> tuple[float, float]:
        stamps = _Stamps()
        started = time.perf_counter()
        self.generate([prompt], output_len, streamer=stamps)
        # The first call brings the prompt.
        return stamps.times[1] - started, stamps.times[-1] - started


class _Stamps:
    """A streamer that notes when tokens come. Source: transformers.generation.streamers.BaseStreamer."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: object) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


if __name__ == "__main__":
    answer(lambda: HuggingFace(sys.argv[1], int(sys.argv[2])))
