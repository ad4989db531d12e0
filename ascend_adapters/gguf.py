"""GGUF files: each is converted once, into a folder of the cache that is named by the file's content."""

import os
import subprocess
import sys
from pathlib import Path

from ascend_adapters.errors import ModelError
from ascend_adapters.prepared import make_once, sha256
from ascend_adapters.progress import Progress

MAGIC = b"GGUF"


def is_gguf(path: Path) -> bool:
    """Whether the file begins as a GGUF does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def converted(path: Path, progress: Progress) -> Path:
    """The Hugging Face folder of a GGUF file, made on first use. Raises ModelError if it cannot be."""
    content = sha256(path)

    def build(temporary: Path) -> Path:
        progress.step("converting to safetensors")
        convert(path, temporary / "built")
        return temporary / "built"

    return make_once(f"{path.stem}-{content[:12]}", f"{path.name}, sha256 {content}", build, progress)


def convert(path: Path, folder: Path) -> None:
    """Write the file's model to `folder`. Raises ModelError with the reason if that cannot be done."""
    # In a process of its own: it imports torch, which must not come into the user's process.
    command = [sys.executable, "-P", "-m", "ascend_adapters.gguf_folder", str(path), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode != 0:
        error, _, reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1].rpartition("Error: ")
        remedy = " Install ascend-adapters[engine]." if error == "ModuleNotFound" else ""
        raise ModelError(f"{path.name} could not be converted: {reason}{remedy}")
