"""The same answers from the NPU, or the simulated one, as from the CPU operator set."""

import json
import os
import subprocess
import sys

import pytest

from tests.adapters import save_adapter
from tests.integrations.llamafactory.test_families import build_with_marks

pytestmark = [pytest.mark.npu, pytest.mark.engine, pytest.mark.claim, pytest.mark.timeout(900)]
QUESTIONS = ["What is the capital of France?", "Name three colours.", "2 + 3 = ?", "Write a line about the sea."]


def predictions(arguments, folder, environment):
    """What `llamafactory-ascend infer` answers, and what it says of its device."""
    config = folder / "infer.yaml"
    config.write_text(json.dumps({**arguments, "save_name": str(folder / "out.jsonl")}))
    ended = subprocess.run(
        [sys.executable, "-m", "llamafactory_ascend", "infer", str(config)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=800,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    records = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    (device,) = [line for line in ended.stderr.splitlines() if line.startswith("engine: ready on device")]
    return [record["predict"] for record in records], device


@pytest.mark.parametrize("model", ["LLaMA", pytest.param("SmolLM2", marks=pytest.mark.slow)])
def test_an_adapter_answers_on_the_npu_as_on_the_cpu(model, request, tmp_path):
    if model == "SmolLM2":
        folder = request.getfixturevalue("chat_model_folder")
    else:
        folder = build_with_marks(model, tmp_path / "model")
    adapter = save_adapter(folder, tmp_path / "adapter", seed=1)
    rows = [{"instruction": question, "input": "", "output": ""} for question in QUESTIONS]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "dataset_info.json").write_text(json.dumps({"questions": {"file_name": "questions.jsonl"}}))
    arguments = {
        "model_name_or_path": str(folder),
        "adapter_name_or_path": str(adapter),
        "finetuning_type": "lora",
        "template": "smollm2",
        "infer_dtype": "float32",
        "dataset": "questions",
        "dataset_dir": str(tmp_path),
        "do_sample": False,
        "max_new_tokens": 12,
        "vllm_config": json.dumps({"max_model_len": 512, "kv_cache_memory_bytes": 256 << 20}),
    }
    without_npu = {name: value for name, value in os.environ.items() if not name.startswith("ASCEND_SIMULATE")}
    (tmp_path / "npu").mkdir()
    (tmp_path / "cpu").mkdir()
    on_npu, npu = predictions(arguments, tmp_path / "npu", dict(os.environ))
    on_cpu, cpu = predictions(arguments, tmp_path / "cpu", {**without_npu, "ASCEND_OP_SET": "cpu"})
    assert "operator set npu" in npu
    assert "operator set cpu" in cpu
    assert on_npu == on_cpu
    assert len(set(on_npu)) == len(QUESTIONS)
