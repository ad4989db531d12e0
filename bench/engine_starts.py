"""`make bench-starts`: how long the engines of one program take to be ready, and what a further one costs in memory.

A chat model, an embedding model and a reranker, as in a RAG program; a new program in every round. It writes the table
of docs/performance.md.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from bench.engine_memory import bytes_of_engine
from bench.quiet import warn_if_busy
from bench.spread import spread
from tools.marked_table import with_table

CHAT, EMBED = "smollm2-135m-instruct", "all-minilm-l6-v2"
NUM_ROUNDS = 3
# The reranker has weights of its own: other settings make another engine.
ENGINES = {
    "first engine: chat, SmolLM2-135M": EmbeddedBackend(CHAT, quiet=True, kv_cache_memory_bytes=1 << 28),
    "second engine: embeddings, all-MiniLM-L6-v2": EmbeddedBackend(EMBED, quiet=True),
    "third engine: reranker, all-MiniLM-L6-v2": EmbeddedBackend(EMBED, quiet=True, max_model_len=128),
}
DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"


def main() -> None:
    """A warm-up, the rounds, and the table."""
    for name in (CHAT, EMBED):
        pull(CATALOGUE[name], Progress(name))
    command = [sys.executable, "-m", "bench.engine_starts", "program"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    warn_if_busy(2)
    rounds = []
    for number in range(NUM_ROUNDS):
        Progress("bench").step(f"round {number + 1} of {NUM_ROUNDS}")
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rounds.append(json.loads(done.stdout))
    names = list(ENGINES)
    lines = ["| | median (min - max) |", "|---|---|"]
    lines += [f"| {name}, ready after | {spread([each['seconds'][name] for each in rounds], 1)} s |" for name in names]
    memory = spread([each["bytes"][names[2]] / 2**30 for each in rounds], 2)
    lines.append(f"| memory that the third adds, above its weights | {memory} GiB |")
    print("\n".join(lines))
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), "starts", "\n".join(lines) + "\n"))


def program() -> None:
    """One program that needs all three, one after the other."""
    weights = sum(file.stat().st_size for file in pull(CATALOGUE[EMBED], Progress(EMBED)).glob("*.safetensors"))
    seconds, added = {}, {}
    for name, backend in ENGINES.items():
        before, started = bytes_of_engine(), time.perf_counter()
        run_sync(backend.info())
        seconds[name] = time.perf_counter() - started
        added[name] = bytes_of_engine() - before - weights / 2  # computed in 16 bits, kept in 32
    print(json.dumps({"seconds": seconds, "bytes": added}))


if __name__ == "__main__":
    program() if sys.argv[1:] == ["program"] else main()
