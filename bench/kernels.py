"""`make bench-kernels`: the CPU operator set with its kernels beside plain torch; writes docs/performance.md."""

import os
from pathlib import Path

from ascend_adapters.progress import Progress
from bench.contestants import Embedded
from bench.quiet import warn_if_busy
from bench.spread import spread
from bench.workloads import W1, W2, W2_FIRST, W3, measure
from tools.marked_table import with_table

MODEL = "smollm2-135m-instruct"
NUM_THREADS = len(os.sched_getaffinity(0))
NUM_ROUNDS = 3
DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
KERNELS = ("torch", "avx512")


def main() -> None:
    """Measure, print, write."""
    warn_if_busy(NUM_THREADS)
    engines = [_start(kernels, seed) for seed, kernels in enumerate(KERNELS)]
    rounds: dict[str, list[dict[str, float]]] = {kernels: [] for kernels in KERNELS}
    for number in range(NUM_ROUNDS + 1):
        for kernels, engine in zip(KERNELS, engines, strict=True):
            Progress("bench").step(f"{kernels}, {f'round {number} of {NUM_ROUNDS}' if number else 'warm-up'}")
            values = measure(engine, number)
            if number:
                rounds[kernels].append(values)
    for engine in engines:
        engine.close()
    table = _table(*rounds.values())
    print(table)
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), "kernels", table))


def _start(kernels: str, seed: int) -> Embedded:
    """An engine of its own: with equal settings both would be one."""
    os.environ["ASCEND_CPU_KERNELS"] = kernels
    return Embedded(MODEL, NUM_THREADS, seed=seed)


def _table(plain: list[dict[str, float]], ours: list[dict[str, float]]) -> str:
    lines = ["| | torch | kernels | ratio |", "|---|---|---|---|"]
    for workload in (W1, W2, W2_FIRST, W3):
        before, after = ([values[workload.name] for values in rounds] for rounds in (plain, ours))
        ratios = [new / old for old, new in zip(before, after, strict=True)]
        cells = [f"{workload.name}, {workload.unit}", spread(before, 1), spread(after, 1), spread(ratios, 2)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
