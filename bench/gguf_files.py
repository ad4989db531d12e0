"""The catalogue's model as other engines read it."""

import subprocess
from pathlib import Path

from ascend_adapters.models import CatalogueModel, original
from bench.contestants import ENVIRONMENTS, PEERS, MissingError


def written_by_llama_cpp(model: CatalogueModel, folder: Path, kind: str) -> Path:
    """A GGUF of the model in 16-bit floats, "f16" or "bf16". Raises MissingError without llama.cpp."""
    python = ENVIRONMENTS / "llama-cpp" / "bin" / "python"
    if not python.exists():
        raise MissingError(
            f"the model's file is written by llama.cpp ({ENVIRONMENTS.name}/llama-cpp: make bench-peers)"
        )
    target = folder / f"{model.name}-{kind}.gguf"
    if not target.exists():
        source = next(folder.glob(model.member), None) or original(model, folder)
        command = [str(part) for part in (python, PEERS / "requantize.py", source, target, kind)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise MissingError(f"its model could not be written: {done.stderr.strip()[-300:]}")
    return target
