"""`make bench-shapes`: larger models of random weights, on our kernels, on torch's operators, and on vLLM's CPU build.

A dense one of a billion parameters, the same in int8, and mixtures of 16 experts, of which 4 are chosen: one with
attention in groups, one with latent attention. Writes docs/performance.md.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from bench import report
from bench.contestants import MissingError, Remote, vllm_cpu_variables
from bench.int8_model import write_int8
from bench.quiet import warn_if_busy
from bench.workloads import Batch, Metric, Stream
from tools.marked_table import with_table

TOKENIZER = "smollm2-135m-instruct"  # whose vocabulary the models have
NUM_THREADS = len(os.sched_getaffinity(0))
NUM_ROUNDS = 3
WORKLOADS = (
    Batch(Metric("16 requests, 128 in, 64 out", "output tokens/s"), 16, 128, 64),
    Stream(
        Metric("one stream, 128 in, 64 out", "decode tokens/s"),
        Metric("time to first token", "ms", less_is_better=True),
        128,
        64,
    ),
)
COMMON: dict[str, Any] = {
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "bos_token_id": None,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
}

Rounds = dict[str, list[dict[Metric, float]]]


def main() -> None:
    """Measure, print, write."""
    warn_if_busy(NUM_THREADS)
    lines = ["| | | ours | torch's operators | vLLM, CPU build | ours to torch's | ours to vLLM's |", "|---" * 7 + "|"]
    with tempfile.TemporaryDirectory() as folder:
        Progress("bench").step("making the models")
        dense, experts, latent = (
            _saved(config, Path(folder) / str(i)) for i, config in enumerate((_dense(), _experts(), _latent()))
        )
        models = {
            "dense, 1.1 billion": dense,
            "the same, int8 (W8A8)": write_int8(dense, Path(folder) / "int8"),
            "16 experts, 0.7 billion": experts,
            "16 experts, latent attention, 0.5 billion": latent,
        }
        for name, model in models.items():
            lines += _rows(name, _measure_in_turn(model))
    table = "\n".join([*lines, ""])
    print(table)
    report.DOCUMENT.write_text(with_table(report.DOCUMENT.read_text(), "shapes", table))


def _measure_in_turn(folder: Path) -> Rounds:
    threads = {"OMP_NUM_THREADS": str(NUM_THREADS)}
    ways: dict[str, tuple[dict[str, str], str | None]] = {
        report.OURS: (threads, None),
        report.PLAIN: (threads | {"ASCEND_CPU_KERNELS": "torch"}, None),
        report.VLLM_CPU: (vllm_cpu_variables(), "vllm-cpu"),
    }
    engines = []
    for name, (variables, environment) in ways.items():
        arguments = [str(folder), "generate"]
        try:
            engines.append(Remote(name, "vllm_engine.py", arguments, WORKLOADS, environment, variables))
        except MissingError as error:
            print(f"without {name}: {error}")
    rounds: Rounds = {engine.name: [] for engine in engines}
    for seed in range(NUM_ROUNDS + 1):
        for engine in engines:
            Progress("bench").step(f"{engine.name}, {f'round {seed} of {NUM_ROUNDS}' if seed else 'warm-up'}")
            values: dict[Metric, float] = {}
            for workload in WORKLOADS:
                values |= workload.measure(engine, seed)
            if seed:
                rounds[engine.name].append(values)
    for engine in engines:
        engine.close()
    return rounds


def _rows(model: str, rounds: Rounds) -> list[str]:
    rows = []
    for name, row in report.metrics_of(rounds).items():
        values = [row["values"].get(who) for who in (report.OURS, report.PLAIN, report.VLLM_CPU)]
        ratios = [row["ours_to"].get(who) for who in (report.PLAIN, report.VLLM_CPU)]
        cells = [report.cell(of, 1) if of else "missing" for of in values]
        cells += [report.cell(of, 2) if of else "missing" for of in ratios]
        rows.append(f"| {model} | {name}, {row['unit']} | {' | '.join(cells)} |")
    return rows


def _dense() -> Any:
    import transformers

    return transformers.LlamaConfig(
        hidden_size=2048,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        intermediate_size=8192,
        **COMMON,
    )


def _experts() -> Any:
    import transformers

    return transformers.Qwen3MoeConfig(
        hidden_size=1024,
        num_hidden_layers=16,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=64,
        num_experts=16,
        num_experts_per_tok=4,
        moe_intermediate_size=768,
        **COMMON,
    )


def _latent() -> Any:
    import transformers

    return transformers.DeepseekV2Config(
        hidden_size=1024,
        num_hidden_layers=12,
        num_attention_heads=16,
        num_key_value_heads=16,
        q_lora_rank=None,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        n_routed_experts=16,
        num_experts_per_tok=4,
        n_shared_experts=1,
        moe_intermediate_size=512,
        first_k_dense_replace=1,
        intermediate_size=2816,
        topk_method="greedy",
        norm_topk_prob=False,
        n_group=1,
        topk_group=1,
        **COMMON | {"tie_word_embeddings": False},
    )


def _saved(config: Any, folder: Path) -> Path:
    """The folder, with a model of random weights and a tokenizer."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.generation_config = transformers.GenerationConfig()
    model.save_pretrained(folder)
    for file in pull(CATALOGUE[TOKENIZER], Progress(TOKENIZER)).glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


if __name__ == "__main__":
    main()
