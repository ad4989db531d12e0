"""`make bench-growth`: how the engine's cost grows with concurrent requests, and with the length of their contexts.

Writes bench/growth.png and the tables of docs/performance.md.
"""

import os
from pathlib import Path
from typing import Any

from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from bench import report
from bench.contestants import Remote
from bench.quiet import warn_if_busy
from bench.workloads import made_up_prompts
from tools.marked_table import with_table

MODEL = "smollm2-135m-instruct"
NUM_THREADS = len(os.sched_getaffinity(0))
NUM_ROUNDS = 3
CONCURRENT = (1, 2, 4, 8, 16, 32, 64, 128)
PROMPT_LEN, OUTPUT_LEN = 128, 64
CONTEXTS = (256, 512, 1024, 2048, 4096, 8000)
NUM_STREAMS = 4  # of each context
NUM_STEPS = 33  # timed after the prompts are read
PICTURE = Path(__file__).parent / "growth.png"

Rounds = dict[int, list[float]]


def main() -> None:
    """Measure, print, write."""
    warn_if_busy(NUM_THREADS)
    folder = pull(CATALOGUE[MODEL], Progress(MODEL))
    engine = Remote(
        report.OURS, "vllm_engine.py", [str(folder), "generate"], (), variables={"OMP_NUM_THREADS": str(NUM_THREADS)}
    )
    throughput: Rounds = {count: [] for count in CONCURRENT}
    milliseconds: Rounds = {length: [] for length in CONTEXTS}
    for seed in range(NUM_ROUNDS + 1):
        Progress("bench").step(f"round {seed} of {NUM_ROUNDS}" if seed else "warm-up")
        for count in CONCURRENT:
            value = _tokens_per_second(engine, count, seed)
            throughput[count] += [value] if seed else []
        for length in CONTEXTS:
            value = _ms_per_step(engine, length, seed)
            milliseconds[length] += [value] if seed else []
    engine.close()
    document = report.DOCUMENT.read_text()
    for name, table in (("concurrency", _concurrency(throughput)), ("contexts", _contexts(milliseconds, folder))):
        print(table)
        document = with_table(document, name, table)
    report.DOCUMENT.write_text(document)
    _draw(throughput, milliseconds)


def _tokens_per_second(engine: Remote, count: int, seed: int) -> float:
    prompts = made_up_prompts(f"{count} at once {seed}", count, PROMPT_LEN)
    return count * OUTPUT_LEN / engine.generate(prompts, OUTPUT_LEN)


def _ms_per_step(engine: Remote, length: int, seed: int) -> float:
    """Of NUM_STREAMS requests with `length` tokens each, whose prompts are in the prefix cache already."""
    prompts = made_up_prompts(f"contexts of {length} {seed}", NUM_STREAMS, length)
    engine.generate(prompts, 1)
    first = engine.generate(prompts, 1)
    return 1000 * (engine.generate(prompts, NUM_STEPS) - first) / (NUM_STEPS - 1)


def _concurrency(rounds: Rounds) -> str:
    lines = ["| requests at once | output tokens/s |", "|---|---|"]
    lines += [f"| {count} | {report.cell(report.spread(values), 0)} |" for count, values in rounds.items()]
    return "\n".join([*lines, ""])


def _contexts(rounds: Rounds, folder: Path) -> str:
    """With what each step reads: weights once, and every context's keys and values; and what more of these costs."""
    from bench.limits import Model

    per_token, weights = _kv_bytes(folder), Model.of(folder).num_bytes
    lines = ["| tokens of context | ms per step | MB read per step | ms per further 100 MB |", "|---|---|---|---|"]
    before = None
    for length, values in rounds.items():
        megabytes, ms = (weights + NUM_STREAMS * length * per_token) / 1e6, report.spread(values)
        further = 100 * (ms["median"] - before[0]) / (megabytes - before[1]) if before else None
        before = ms["median"], megabytes
        lines.append(f"| {length} | {report.cell(ms, 2)} | {megabytes:.0f} | {f'{further:.1f}' if further else ''} |")
    return "\n".join([*lines, ""])


def _kv_bytes(folder: Path) -> int:
    """Of one token, in all layers."""
    import json

    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return int(2 * 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"])


def _draw(throughput: Rounds, milliseconds: Rounds) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, rounds in ((left, throughput), (right, milliseconds)):
        spreads = [report.spread(values) for values in rounds.values()]
        medians = [of["median"] for of in spreads]
        whiskers = [[of["median"] - of["min"] for of in spreads], [of["max"] - of["median"] for of in spreads]]
        axes.errorbar(list(rounds), medians, yerr=whiskers, marker="o", capsize=3, color="#c7000b")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    left.set_xscale("log", base=2)
    left.set_xticks(CONCURRENT, [str(count) for count in CONCURRENT])
    left.set_xlabel(f"requests at once ({PROMPT_LEN} in, {OUTPUT_LEN} out)")
    left.set_ylabel("output tokens/s")
    right.set_xlabel(f"tokens of context ({NUM_STREAMS} requests)")
    right.set_ylabel("ms per step")
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
