"""`make bench`: ours and Hugging Face generate in one run, in turn; a table, bench/results.json and a chart."""

import json
import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from bench.chart import draw_chart
from bench.contestants import Embedded, HuggingFace
from bench.quiet import warn_if_busy
from bench.startup import startup_seconds
from bench.workloads import W1, W2, W2_FIRST, W3, Contestant, measure

MODEL = "smollm2-135m-instruct"
NUM_ROUNDS = 3
NUM_THREADS = len(os.sched_getaffinity(0))
WORKLOADS = (W1, W2, W2_FIRST, W3)
FOLDER = Path(__file__).parent


def main() -> None:
    """Measure, print, write."""
    warn_if_busy(NUM_THREADS)
    startup = startup_seconds(NUM_ROUNDS)
    folder = pull(CATALOGUE[MODEL], Progress(MODEL))
    started = time.perf_counter()
    ours = Embedded(MODEL, NUM_THREADS)
    ready_after = time.perf_counter() - started
    contestants: list[Contestant] = [ours, HuggingFace(str(folder), NUM_THREADS)]
    rounds = _measure_in_turn(contestants)
    ours.close()
    results: dict[str, Any] = {
        "environment": _environment(),
        "startup_s": {**startup, "embedded engine ready": ready_after},
        "workloads": _summary(rounds),
    }
    _print_table(results)
    (FOLDER / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw_chart(results["workloads"], FOLDER / "results.png")


def _measure_in_turn(contestants: list[Contestant]) -> dict[str, list[dict[str, float]]]:
    """Every contestant's rounds; the first round of each is a warm-up and not kept."""
    rounds: dict[str, list[dict[str, float]]] = {contestant.name: [] for contestant in contestants}
    for seed in range(NUM_ROUNDS + 1):
        for contestant in contestants:
            Progress("bench").step(f"{contestant.name}, {f'round {seed} of {NUM_ROUNDS}' if seed else 'warm-up'}")
            values = measure(contestant, seed)
            if seed:
                rounds[contestant.name].append(values)
    return rounds


def _summary(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Each workload: every contestant's median, min and max, and the ratio of ours to the other, round by round."""
    our_rounds, other_rounds = rounds.values()
    summary = {}
    for workload in WORKLOADS:
        values = {name: [values[workload.name] for values in kept] for name, kept in rounds.items()}
        ratios = [a[workload.name] / b[workload.name] for a, b in zip(our_rounds, other_rounds, strict=True)]
        spreads: dict[str, Any] = {name: _spread(kept) for name, kept in values.items()}
        summary[workload.name] = {"unit": workload.unit, **spreads, "ratio": _spread(ratios)}
    return summary


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _environment() -> dict[str, Any]:
    cpu = [
        line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    packages = {name: version(name) for name in ("torch", "vllm", "transformers")}
    return {"cpu": cpu[0] if cpu else platform.machine(), "threads": NUM_THREADS, "dtype": "bfloat16", **packages}


def _print_table(results: dict[str, Any]) -> None:
    print(f"\n{MODEL}, {results['environment']}, median of {NUM_ROUNDS} (min - max)")
    for name, seconds in results["startup_s"].items():
        print(f"  {name:<50} {seconds:>6.2f} s")
    for name, row in results["workloads"].items():
        print(f"{name} ({row['unit']})")
        for column in (Embedded.name, HuggingFace.name, "ratio"):
            spread, digits = row[column], 2 if column == "ratio" else 1
            low, high = f"{spread['min']:.{digits}f}", f"{spread['max']:.{digits}f}"
            print(f"  {column:<22} {spread['median']:>8.{digits}f}  ({low} - {high})")


if __name__ == "__main__":
    main()
