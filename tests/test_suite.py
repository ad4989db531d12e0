"""What keeps the suite fast: engines are shared, and nothing heavy is imported while tests are collected."""

import ast
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent

# Modules that start engines of their own, and why the shared ones will not do. All others ask the fixture engine_of.
OWN_ENGINES = {
    "engines.py": "the fixture itself",
    "e2e/test_lifecycle.py": "it kills them",
    "e2e/test_launcher.py": "it kills them",
    "e2e/test_cancellation.py": "another time-out on a shared engine",
    "e2e/test_unknown_models.py": "the start fails",
    "e2e/test_npu.py": "each in an environment of its own, and one at a time: the simulated devices take the memory",
    "integrations/llamafactory/test_engine.py": "LLaMA-Factory's ChatModel starts its engine",
    "integrations/llamafactory/test_families.py": "LLaMA-Factory's ChatModel starts its engine",
    "integrations/llamafactory/test_infer.py": "LLaMA-Factory's ChatModel starts its engine",
    "integrations/llamafactory/test_its_own_tests.py": "LLaMA-Factory's ChatModel starts its engine",
    "integrations/llamafactory/test_media.py": "LLaMA-Factory's ChatModel starts its engine",
    "integrations/llamafactory/test_scores.py": "LLaMA-Factory's ChatModel starts its engine",
}
STARTS = {"EmbeddedBackend", "ChatModel", "chat_model"}
HEAVY = {
    "vllm",
    "transformers",
    "llamafactory",
    "llama_index",
    "sentence_transformers",
    "peft",
    "datasets",
    "hypothesis",
}


def calls_of(file: Path) -> set[str]:
    """Names that are called in it, also as attributes of a module."""
    calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    return {
        call.id if isinstance(call, ast.Name) else call.attr
        for call in calls
        if hasattr(call, "id") or hasattr(call, "attr")
    }


def test_no_other_module_starts_an_engine_of_its_own():
    starting = {str(file.relative_to(FOLDER)) for file in FOLDER.rglob("*.py") if calls_of(file) & STARTS}
    assert starting == set(OWN_ENGINES)


def test_scripts_that_use_vllm_as_a_library_are_run_through_the_launcher():
    """Not as processes of their own, each of which would import vLLM anew."""
    scripts = {file.stem for file in FOLDER.rglob("*.py") if "use_vllm_as_library()" in file.read_text()}
    for file in FOLDER.rglob("test_*.py"):
        text = file.read_text()
        assert not [name for name in scripts if f'"-m", "tests.e2e.{name}"' in text], file


def test_collecting_all_tests_imports_nothing_heavy():
    code = (
        "import sys, pytest; status = pytest.main(['--collect-only', '-q', '--tier', 'any']);"
        "print(status, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=FOLDER.parent)
    status, *modules = done.stdout.splitlines()[-1].split()
    assert status == "0" or status.endswith("OK"), done.stdout[-3000:]
    assert not HEAVY & set(modules)
