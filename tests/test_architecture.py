"""The folders are the architecture: who may import whom, and what the wheel holds."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.torch_npu_calls import mentions

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "vllm", "transformers", "core_backend")

# package -> modules that importing it must not pull in
FORBIDDEN = {
    "ascend_adapters": (*HEAVY, "httpx", "langchain_core", "llama_index"),
    "ascend_adapters.embedded": (*HEAVY, "langchain_core", "llama_index"),
    "ascend_adapters.cli": (*HEAVY, "httpx", "rich"),
    "langchain_ascend": (*HEAVY, "llama_index"),
    "llama_index.llms.ascend": (*HEAVY, "langchain_core"),
    "llama_index.embeddings.ascend": (*HEAVY, "langchain_core"),
    "llama_index.postprocessor.ascend_rerank": (*HEAVY, "langchain_core"),
    "llamafactory_ascend": (*HEAVY, "langchain_core", "llama_index", "llamafactory"),
    "core_backend": ("torch", "vllm", "ascend_adapters"),
    "core_backend.simulator": ("torch", "vllm", "ascend_adapters"),
    "core_backend.ops.cpu": ("vllm", "ascend_adapters"),
    "core_backend.worker.cpu": ("ascend_adapters",),
}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_import_stays_inside_its_layer(package):
    code = f"import sys, {package}; print(*sys.modules, file=sys.stderr)"  # fresh interpreter: no leaked imports
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert not set(FORBIDDEN[package]) & set(done.stderr.split())


ADAPTER_FILES = sorted((ROOT / "integrations").rglob("*.py"))


@pytest.mark.parametrize("file", ADAPTER_FILES, ids=lambda file: str(file.relative_to(ROOT / "integrations")))
def test_an_adapter_translates_and_decides_nothing(file):
    """It is small, and knows the contract only: nothing below it, not even inside a function."""
    text = file.read_text()
    assert len(text.splitlines()) <= 400
    imported = {name.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert not {name.partition(".")[0] for name in imported} & {"vllm", "torch", "torch_npu", "core_backend"}


# core_backend from the bottom up: a layer may import those before it.
LAYERS = (
    "plugins",
    "cgroup",
    "config",
    "hardware",
    "versions",
    "device",
    "metrics",
    "media_connector",
    "media",
    "native_build",
    "cpu_kernels",
    "ops",
    "linear",
    "lm_head",
    "quantization",
    "attention",
    "moe",
    "layers",
    "sentence_transformers_files",
    "pooling_scheduler",
    "lora",
    "speculation",
    "tool_parsers",
    "triton_launchers",
    "upstream_patches",
    "engine_process",
    "worker",
    "probe",
    "platform",
    "simulator",
)


@pytest.mark.parametrize("layer", LAYERS)
def test_core_backend_imports_point_one_way(layer):
    """Read from the source: importing anything of vLLM loads the platform, which is the top layer."""
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    folder = ROOT / "core_backend"
    for file in [folder / f"{layer}.py"] if (folder / f"{layer}.py").exists() else (folder / layer).rglob("*.py"):
        assert _layers_imported_by(file) <= set(allowed), file


def test_every_module_of_core_backend_has_its_layer():
    modules = {path.stem for path in (ROOT / "core_backend").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules - {"__init__", "__pycache__"} == set(LAYERS)


def _layers_imported_by(file):
    layers = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "core_backend":
            below = node.module.split(".")[1:2]
            layers |= set(below or [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            layers |= {a.name.split(".")[1] for a in node.names if a.name.startswith("core_backend.")}
    return layers


MAY_TOUCH_TORCH_NPU = ("ops/npu/", "device/npu.py", "simulator/")


def test_torch_npu_is_touched_by_the_npu_operators_and_the_device_module_only():
    files = sorted((ROOT / "core_backend").rglob("*.py"))
    touched = [place for file in files for place in mentions(file)]
    assert [place for place in touched if not place.startswith(MAY_TOUCH_TORCH_NPU)] == []
    assert any(place.startswith("ops/npu/attention.py") for place in touched), "the reader sees something"


def test_nothing_outside_the_simulator_knows_of_it():
    for file in sorted((ROOT / "core_backend").rglob("*.py")):
        if "simulator" not in file.parts:
            assert "simulat" not in file.read_text().lower(), file


def test_patches_are_not_applied_by_importing(tmp_path):
    """They belong into the engine's processes only."""
    code = (
        "import torch, core_backend.platform.cpu, core_backend.layers, core_backend.worker.cpu;"
        "from vllm.v1.worker import block_table as b;"
        "print(torch.accelerator.synchronize.__module__, type(b._compute_slot_mapping_kernel).__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert "core_backend" not in done.stdout.splitlines()[-1]


def test_the_wheel_holds_the_five_import_names_and_no_other(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "ascend_adapters",
        "core_backend",
        "langchain_ascend",
        "llama_index",
        "llamafactory_ascend",
    }
    # LlamaIndex's own packages share these folders: an __init__.py of ours would hide them.
    namespaces = ("llama_index", "llama_index/llms", "llama_index/embeddings", "llama_index/postprocessor")
    shared = {f"{namespace}/__init__.py" for namespace in namespaces}
    assert not shared & set(names)
    assert "ascend_adapters/vllm_names.json" in names


def test_constraints_pin_versions_and_name_no_address():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line and "@" not in line and "://" not in line for line in lines)
