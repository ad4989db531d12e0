"""Folders of models in the user's cache, each made once and whole, with a manifest of hashes to check it by."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ascend_adapters.errors import ModelError
from ascend_adapters.progress import Progress

MANIFEST = "ascend-adapters.json"


def cache_folder() -> Path:
    """Where prepared models are kept: $ASCEND_ADAPTERS_CACHE, or ascend-adapters in the user's cache folder."""
    if given := os.environ.get("ASCEND_ADAPTERS_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ascend-adapters"


def folder_named(name: str) -> Path:
    """Where the prepared model `name` is, or will be."""
    return cache_folder() / "models" / name


def is_intact(folder: Path) -> bool:
    """Whether all files are there and have the hashes of the manifest."""
    try:
        hashes: dict[str, str] = json.loads((folder / MANIFEST).read_text())["sha256"]
        return all(sha256(folder / name) == wanted for name, wanted in hashes.items())
    except (OSError, ValueError, KeyError):
        return False


def make_once(name: str, source: str, build: Callable[[Path], Path], progress: Progress) -> Path:
    """The folder of the model `name`; what is there and intact is kept.

    source  what it is made of, for the manifest
    build   makes the model below the temporary folder it is given, and returns the folder

    Raises ModelError if it cannot be built.
    """
    folder = folder_named(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent / f".{name}.lock"):
            if not is_intact(folder):
                if folder.exists():
                    progress.step("preparing it again: its files do not match their hashes")
                _make(folder, source, build)
                progress.done("ready")
    except OSError as error:
        raise ModelError(
            f"{name} could not be prepared in {cache_folder()}: {error}. Make room there, or set "
            "ASCEND_ADAPTERS_CACHE to another folder."
        ) from error
    return folder


def _make(folder: Path, source: str, build: Callable[[Path], Path]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        built = build(Path(temporary))
        hashes = {str(file.relative_to(built)): sha256(file) for file in sorted(built.rglob("*")) if file.is_file()}
        (built / MANIFEST).write_text(json.dumps({"source": source, "sha256": hashes}, indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        built.rename(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process at a time prepares a model; the others wait and find it ready."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sha256(path: Path) -> str:
    """A file's hash."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
