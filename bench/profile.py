"""`make bench-profile`: where the time of W1 and W2 goes, on torch's operators and on our kernels.

Writes the table of docs/performance.md. The profiler's own time is in it, for every operator called.
"""

import os

from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from bench import report
from bench.contestants import Remote
from bench.quiet import warn_if_busy
from bench.workloads import W1, W2, made_up_prompts
from tools.marked_table import with_table

MODEL = "smollm2-135m-instruct"
NUM_THREADS = len(os.sched_getaffinity(0))
KERNELS = {"torch": "torch's operators", "auto": "our kernels"}
WORKLOADS = {"W1": (W1.num_requests, W1.prompt_len, W1.output_len), "W2": (1, W2.prompt_len, W2.output_len)}
NUM_OPERATORS = 6  # the longest of each
HOST = "Python, scheduler, sampling parameters"

Times = dict[str, float]  # operator -> seconds


def main() -> None:
    """Measure, print, write."""
    warn_if_busy(NUM_THREADS)
    found = {kernels: _profile(kernels) for kernels in KERNELS}
    table = _table(found)
    print(table)
    report.DOCUMENT.write_text(with_table(report.DOCUMENT.read_text(), "profile", table))


def _profile(kernels: str) -> dict[str, Times]:
    """Each workload's operators, and what is left for the host."""
    folder = pull(CATALOGUE[MODEL], Progress(MODEL))
    variables = {"OMP_NUM_THREADS": str(NUM_THREADS), "ASCEND_CPU_KERNELS": kernels}
    engine = Remote(KERNELS[kernels], "vllm_engine.py", [str(folder), "generate"], (), variables=variables)
    found = {}
    for name, (count, prompt_len, output_len) in WORKLOADS.items():
        engine.generate(made_up_prompts(f"{name} warm-up", count, prompt_len), output_len)
        seconds, operators = engine.ask("profile", made_up_prompts(name, count, prompt_len), output_len)
        times: Times = {}
        for operator, time in operators.items():
            # Recorded steps call the same kernels, into memory that there is already.
            times[operator.removesuffix("_into")] = times.get(operator.removesuffix("_into"), 0) + time
        found[name] = times | {HOST: seconds - sum(times.values())}
    engine.close()
    return found


def _table(found: dict[str, dict[str, Times]]) -> str:
    lines = [f"| | {' | '.join(f'{name}, {of}' for name in WORKLOADS for of in KERNELS.values())} |"]
    lines.append("|---" * (1 + len(WORKLOADS) * len(KERNELS)) + "|")
    columns = [found[kernels][name] for name in WORKLOADS for kernels in KERNELS]
    operators = [name for times in columns for name in _longest(times)]
    for operator in [*dict.fromkeys(operators), HOST]:
        lines.append(
            f"| {operator.replace('ascend_cpu::', '')} | {' | '.join(_cell(of, operator) for of in columns)} |"
        )
    lines.append(f"| all | {' | '.join(f'{1000 * sum(times.values()):.0f} ms' for times in columns)} |")
    return "\n".join([*lines, ""])


def _longest(times: Times) -> list[str]:
    operators = [name for name in times if name != HOST]
    return sorted(operators, key=times.__getitem__, reverse=True)[:NUM_OPERATORS]


def _cell(times: Times, operator: str) -> str:
    if operator not in times:
        return ""
    return f"{1000 * times[operator]:.0f} ms ({100 * times[operator] / sum(times.values()):.0f}%)"


if __name__ == "__main__":
    main()
