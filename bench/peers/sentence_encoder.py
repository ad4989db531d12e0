"""sentence-transformers, bf16, texts of like lengths together (its own way)."""

import sys
import time
from importlib.metadata import version

import torch
from answering import answer
from sentence_transformers import SentenceTransformer

BATCH_SIZE = 64  # of 16, 32, 64 and 128 the fastest here


class SentenceEncoder:
    """Texts to vectors."""

    def __init__(self, folder: str, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": torch.bfloat16})

    def versions(self) -> dict[str, str]:
        return {"sentence-transformers": version("sentence-transformers"), "torch": version("torch")}

    def embed(self, texts: list[str]) -> float:
        started = time.perf_counter()
        self._model.encode(texts, batch_size=BATCH_SIZE, show_progress_bar=False, convert_to_tensor=True)
        return time.perf_counter() - started


if __name__ == "__main__":
    answer(lambda: SentenceEncoder(sys.argv[1], int(sys.argv[2])))
