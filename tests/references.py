"""Answers of other libraries (transformers, sentence-transformers, peft) that are computed once, and kept.

An answer is kept in tests/stored under the hash of what it depends on: the question, the files of the model, and the
library's version. Where one of them is another, it is computed. The environment variable REFERENCES tells otherwise:
`write` keeps what is computed (make references), `check` computes all of them and compares (make test-slow).
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

FOLDER = Path(__file__).parent / "stored"
MODE = "REFERENCES"
DIGITS = 6  # of numbers, after the point
TOLERANCE = 2e-5  # of numbers that are computed again, on another CPU perhaps


def reference(library: str, question: Any, folders: Iterable[Path], compute: Callable[[], T]) -> T:
    """The answer of `library` to `question`, which `compute` gives too: numbers and texts, in lists and dicts.

    question  whatever the answer depends on besides the files: prompts, settings, what is asked for
    folders   of the model, and of its adapters
    """
    key = [library, version(library), question, [_hash_of(folder) for folder in folders]]
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    file, mode = FOLDER / f"{name}.json", os.environ.get(MODE, "")
    if file.exists() and mode != "check":
        stored: T = json.loads(file.read_text())
        return stored
    answer: T = _rounded(compute())
    if mode == "write":
        FOLDER.mkdir(exist_ok=True)
        file.write_text(json.dumps(answer, separators=(",", ":")) + "\n")
    elif file.exists():
        _check_equal(answer, json.loads(file.read_text()), file.name)
    return answer


@cache
def _hash_of(folder: Path) -> str:
    """Of the names and bytes of all files that say what a model answers."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", ".json", ".txt", ".jinja") and file.name != "ascend-adapters.json":
            digest.update(file.name.encode())
            # peft writes the folder of the base model into its file.
            text = file.name == "adapter_config.json"
            digest.update(_without_path(file) if text else file.read_bytes())
    return digest.hexdigest()


def _without_path(file: Path) -> bytes:
    config = json.loads(file.read_text())
    return json.dumps({**config, "base_model_name_or_path": None}, sort_keys=True).encode()


def _rounded(answer: Any) -> Any:
    if isinstance(answer, float):
        return round(answer, DIGITS)
    if isinstance(answer, dict):
        return {name: _rounded(value) for name, value in answer.items()}
    return [_rounded(item) for item in answer] if isinstance(answer, list | tuple) else answer


def _check_equal(fresh: Any, stored: Any, name: str) -> None:
    """Raises AssertionError where the kept answer is not what the library says now."""
    if isinstance(fresh, float) and isinstance(stored, float | int):
        assert abs(fresh - stored) <= TOLERANCE, f"tests/stored/{name}: {stored}, and computed again {fresh}"
    elif isinstance(fresh, list) and isinstance(stored, list):
        assert len(fresh) == len(stored), f"tests/stored/{name}: {len(stored)} items, and computed again {len(fresh)}"
        for pair in zip(fresh, stored, strict=True):
            _check_equal(*pair, name)
    elif isinstance(fresh, dict) and isinstance(stored, dict):
        assert fresh.keys() == stored.keys(), f"tests/stored/{name}: other names"
        for key in fresh:
            _check_equal(fresh[key], stored[key], name)
    else:
        assert fresh == stored, f"tests/stored/{name}: {stored!r}, and computed again {fresh!r}"
