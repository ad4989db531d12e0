"""Native parts, compiled on this machine once and kept in a cache folder."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch


def cache_folder(name: str) -> Path:
    """Where what `name` builds is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ascend-adapters"
    return Path(os.environ.get("ASCEND_ADAPTERS_CACHE") or cache) / name


def built_once(folder: Path, build_into: Callable[[Path], None]) -> Path:
    """`folder`, built by one process while others wait, and renamed into place whole."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as temporary:
                built = Path(temporary) / "built"
                built.mkdir()
                build_into(built)
                built.rename(folder)
    return folder


def torch_flags() -> list[str]:
    """What the compiler needs for code on torch's C++ interface, but for the libraries."""
    folder = Path(torch.__file__).parent
    includes = [f"-I{folder}/include", f"-I{folder}/include/torch/csrc/api/include"]
    return [
        "-std=c++17",
        "-shared",
        "-fPIC",
        "-DNDEBUG",  # as torch was built: without it, some of its classes have other members
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        *includes,
    ]


def torch_libraries() -> list[str]:
    """To be named after the sources."""
    return [f"-L{Path(torch.__file__).parent}/lib", "-lc10", "-ltorch_cpu"]


def run(command: Sequence[str | Path], failure: str, hidden: Collection[str] = ()) -> str:
    """Its output. Raises RuntimeError, `failure` and the reason, if it fails.

    hidden  environment variables that it does not get
    """
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line]
        reason = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no reason given")
        raise RuntimeError(f"{failure}: {reason.strip()}")
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
