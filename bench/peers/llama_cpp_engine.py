"""llama.cpp through its own batches: all sequences take a step together, greedy."""

import sys
import time
from importlib.metadata import version
from typing import Any

import llama_cpp
import numpy as np
from answering import answer

MAX_SEQUENCES = 64
BATCH = 2048
CONTEXT = 64 * 1024  # tokens of all sequences


class LlamaCpp:
    """Prompts of token ids, exact lengths, greedy."""

    def __init__(self, file: str, num_threads: int) -> None:
        llama_cpp.llama_backend_init()
        model_settings = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(file.encode(), model_settings)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = CONTEXT, MAX_SEQUENCES
        settings.n_batch, settings.n_ubatch = BATCH, 512
        settings.n_threads = settings.n_threads_batch = num_threads
        settings.kv_unified = True
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        self._num_tokens = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def versions(self) -> dict[str, str]:
        return {"llama-cpp-python": version("llama-cpp-python")}

    def generate(self, prompts: list[list[int]], output_len: int) -> float:
        return self._times(prompts, output_len)[-1]

    def stream(self, prompt: list[int], output_len: int) -> tuple[float, float]:
        times = self._times([prompt], output_len)
        return times[0], times[-1]

    def _times(self, prompts: list[list[int]], output_len: int) -> list[float]:
        """When each token of all sequences was there."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        started = time.perf_counter()
        tokens = self._read(prompts)
        times = [time.perf_counter() - started]
        position = len(prompts[0])
        while len(times) < output_len:
            rows = [(token, position, sequence, True) for sequence, token in enumerate(tokens)]
            tokens = self._decode(rows)
            position += 1
            times.append(time.perf_counter() - started)
        return times

    def _read(self, prompts: list[list[int]]) -> list[int]:
        """The prompts, as many whole ones at a time as there is room for; each one's first token."""
        together = max(1, BATCH // len(prompts[0]))
        tokens = []
        for first in range(0, len(prompts), together):
            rows = [
                (token, position, sequence, position == len(prompts[sequence]) - 1)
                for sequence in range(first, min(first + together, len(prompts)))
                for position, token in enumerate(prompts[sequence])
            ]
            tokens += self._decode(rows)
        return tokens

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> list[int]:
        """rows  token, position, sequence, and whether the next token is wanted"""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        if llama_cpp.llama_decode(self._context, batch) != 0:
            raise RuntimeError("llama.cpp could not decode the batch")
        return [self._best(i) for i, row in enumerate(rows) if row[3]]

    def _best(self, row: int) -> int:
        logits: Any = llama_cpp.llama_get_logits_ith(self._context, row)
        return int(np.argmax(np.ctypeslib.as_array(logits, shape=(self._num_tokens,))))


if __name__ == "__main__":
    answer(lambda: LlamaCpp(sys.argv[1], int(sys.argv[2])))
