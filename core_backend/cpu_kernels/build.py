"""The kernels' library, compiled once on this machine."""

import hashlib
import platform
import shutil
from functools import cache
from pathlib import Path

import torch

from core_backend.native_build import built_once, cache_folder, run, torch_flags, torch_libraries

SOURCES = Path(__file__).parent / "csrc"
# What the sources use, named one by one: with -march=native the cache could not be shared by unlike machines.
CPU_FLAGS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "avx512_vnni")
# No -ffast-math: GCC 12 would set flush-to-zero for the whole process.
# AMX is compiled for any of these CPUs, and used where there is one.
OPTIONS = ["-O3", "-fopenmp", "-mfma", "-mf16c", "-mamx-tile", "-mamx-bf16"]
OPTIONS += ["-m" + flag.replace("_", "") for flag in CPU_FLAGS]
LIBRARY = "kernels.so"


def why_unavailable() -> str | None:
    """Why the kernels cannot be used here, with the remedy if there is one; None if they can. Does not compile."""
    if missing := [flag for flag in CPU_FLAGS if flag not in cpu_flags()]:
        return f"this CPU has no {', '.join(missing)}"
    if not _folder().is_dir() and shutil.which("g++") is None:
        return "no g++ on PATH: install a C++ compiler (Debian: apt install g++)"
    return None


def is_built() -> bool:
    """Whether loading takes no time."""
    return _folder().is_dir()


@cache
def load() -> None:
    """Make torch.ops.ascend_cpu, compiling it if need be. Raises RuntimeError if it does not compile."""
    torch.ops.load_library(str(built_once(_folder(), _compile) / LIBRARY))


def allow_amx(allowed: bool) -> bool:
    """Let matrix products of this process run on AMX's tiles, or not; whether they will. After load()."""
    return bool(torch.ops.ascend_cpu.allow_amx(allowed))


def uses_amx() -> bool:
    """Whether matrix products of this process run on AMX's tiles. After load()."""
    return bool(torch.ops.ascend_cpu.uses_amx())


@cache
def cpu_flags() -> frozenset[str]:
    """As the kernel of Linux names them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


def _folder() -> Path:
    """Named after everything that goes into the library."""
    digest = hashlib.sha256(f"{torch.__version__} {platform.machine()} {OPTIONS}".encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    return cache_folder("cpu_kernels") / digest.hexdigest()[:16]


def _compile(folder: Path) -> None:
    files: list[str | Path] = [SOURCES / "kernels.cpp", "-o", folder / LIBRARY]
    command = ["g++", *OPTIONS, *torch_flags(), *files, *torch_libraries()]
    run(command, "the CPU kernels did not compile")
