"""OpenVINO GenAI's continuous batching, bf16, on a GGUF of 16-bit floats."""

import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import openvino
import openvino_genai
from answering import answer


class OpenVinoGenAI:
    """Prompts of token ids, exact lengths, greedy."""

    def __init__(self, file: str, num_threads: int) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = 2  # GB
        scheduler.max_num_batched_tokens = 2048
        scheduler.max_num_seqs = 128
        properties = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": num_threads}
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(file, scheduler, "CPU", properties)
        self._num_asked = 0

    def versions(self) -> dict[str, str]:
        return {"openvino-genai": version("openvino-genai")}

    def generate(self, prompts: list[list[int]], output_len: int) -> float:
        inputs = [_tensor(prompt) for prompt in prompts]
        started = time.perf_counter()
        self._pipeline.generate(inputs, [_greedy(output_len)] * len(prompts))
        return time.perf_counter() - started

    def stream(self, prompt: list[int], output_len: int) -> tuple[float, float]:
        tensor = _tensor(prompt)
        self._num_asked += 1
        started = time.perf_counter()
        handle = self._pipeline.add_request(self._num_asked, tensor, _greedy(output_len))  # whose end ends the request
        stamps = []
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            stamps.append(time.perf_counter() - started)
        (output,) = handle.read_all()
        assert len(output.generated_ids) == output_len
        return stamps[0], stamps[-1]


def _tensor(prompt: list[int]) -> Any:
    return openvino.Tensor(np.array([prompt], dtype=np.int64))


def _greedy(output_len: int) -> Any:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = output_len
    config.ignore_eos = True
    config.do_sample = False
    return config


if __name__ == "__main__":
    answer(lambda: OpenVinoGenAI(sys.argv[1], int(sys.argv[2])))
