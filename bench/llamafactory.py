"""`make bench-llamafactory`: `llamafactory-ascend infer` beside LLaMA-Factory's huggingface engine, in turn.

Both answer the same rows with greedy sampling; each ratio is of one round. Writes the table of docs/llamafactory.md.
"""

import contextlib
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from bench.quiet import warn_if_busy
from bench.spread import spread
from llamafactory_ascend import register
from tools.marked_table import with_table

MODEL = "smollm2-135m-instruct"
NUM_THREADS = len(os.sched_getaffinity(0))
NUM_ROWS, NUM_TOKENS, NUM_ROUNDS = 64, 32, 3
DOCUMENT = Path(__file__).parents[1] / "docs" / "llamafactory.md"


def main() -> None:
    """Measure, print, write."""
    warn_if_busy(NUM_THREADS)
    register()
    import torch
    from llamafactory.chat import ChatModel

    torch.set_num_threads(NUM_THREADS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        questions = _write_rows(folder)
        ours, theirs = (ChatModel(_arguments(backend)) for backend in ("ascend", "huggingface"))
        seconds = _measure(folder, theirs, questions)
        ours.engine.close()
    table = _table(*seconds)
    print(table)
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), "speed", table))


def _write_rows(folder: Path) -> list[str]:
    questions = [f"Tell me about the number {i}." for i in range(NUM_ROWS)]
    rows = [{"instruction": question, "input": "", "output": ""} for question in questions]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "dataset_info.json").write_text(json.dumps({"questions": {"file_name": "questions.jsonl"}}))
    return questions


def _arguments(backend: str) -> dict[str, Any]:
    settings = {"enable_prefix_caching": False, "additional_config": {"num_threads": NUM_THREADS}}
    return {
        "model_name_or_path": str(pull(CATALOGUE[MODEL], Progress(MODEL))),
        "template": "smollm2",
        "infer_backend": backend,
        "infer_dtype": "bfloat16",
        "do_sample": False,
        "max_new_tokens": NUM_TOKENS,
        "vllm_config": json.dumps(settings),
    }


def _measure(folder: Path, theirs: Any, questions: list[str]) -> tuple[list[float], list[float]]:
    """Seconds of ours and theirs in each round, after one round of ours and a few questions of theirs as a warm-up."""
    from llamafactory_ascend.infer import infer

    data = {"dataset": "questions", "dataset_dir": str(folder)}
    ours: list[float] = []
    others: list[float] = []
    for i in range(NUM_ROUNDS + 1):
        Progress("bench").step(f"round {i} of {NUM_ROUNDS}" if i else "warm-up")
        begin = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            infer({**_arguments("ascend"), **data}, folder / "out.jsonl")
        ours.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        for question in questions if i else questions[:3]:
            theirs.chat([{"role": "user", "content": question}])
        others.append(time.perf_counter() - begin)
    return ours[1:], others[1:]


def _table(ours: list[float], theirs: list[float]) -> str:
    ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
    return "\n".join(
        [
            f"| {NUM_ROWS} questions, {NUM_TOKENS} tokens each at most | seconds | times as fast |",
            "|---|---|---|",
            f"| `llamafactory-ascend infer` | {spread(ours, 1)} | {spread(ratios, 1)} |",
            f"| `infer_backend: huggingface`, one after the other | {spread(theirs, 1)} | 1 |",
            "",
        ]
    )


if __name__ == "__main__":
    main()
