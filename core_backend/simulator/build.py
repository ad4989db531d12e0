"""What the simulator needs and the machine does not have, built once into a cache folder.

The torch_npu wheel, stand-ins for CANN's libraries, and the kernel that runs operators on the CPU.
"""

import hashlib
import platform
import shutil
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from core_backend import native_build
from core_backend.native_build import built_once, cache_folder, torch_flags, torch_libraries
from core_backend.simulator import cann_libraries
from core_backend.versions import TESTED

TORCH_NPU = TESTED["torch-npu"]
WHEEL_HASHES = {  # of the wheel for CPython 3.11, by machine
    "x86_64": "7489f67010989c56ed39deb6e25cb809c4d2cc99e7cc3426386e044c4ee8b55d",
    "aarch64": "30da6f628cf87095843d1b432401ded34c5e7345089ed1303b9980ca7fd5f177",
}
NATIVE = Path(__file__).parent / "native"


@dataclass(frozen=True, slots=True)
class Built:
    """Where the parts are."""

    site: Path  # the folder that holds the package torch_npu
    libraries: list[Path]  # CANN's stand-ins, in the order to load them
    allocator_keys: Path
    boxed_kernel: Path
    toolkit: Path


def why_unavailable() -> str | None:
    """Why the simulator cannot be built here, with the remedy; None if it can, or is built already.

    What only a try can tell is tried: the wheel is downloaded if it is not there.
    """
    if _parts_folder().is_dir() and _wheel_folder().is_dir():
        return None
    if missing := [tool for tool in ("gcc", "g++", "readelf", "nm") if shutil.which(tool) is None]:
        return f"no {', '.join(missing)} on PATH: install a C++ compiler (Debian: apt install build-essential)"
    if platform.machine() not in WHEEL_HASHES:
        return f"torch_npu has no wheel for {platform.machine()}: use one of {', '.join(WHEEL_HASHES)}"
    try:
        built_once(_wheel_folder(), _unpack_wheel)
    except RuntimeError as error:
        return str(error)
    except OSError as error:
        return (
            f"nothing can be kept in {cache_folder('simulator')}: {error}; set ASCEND_ADAPTERS_CACHE to another folder"
        )
    return None


def build() -> Built:
    """All parts, from the cache where they are there. About 30 s the first time.

    Raises RuntimeError if the wheel cannot be downloaded or something does not compile.
    """
    if (reason := why_unavailable()) is not None:
        raise RuntimeError(f"ASCEND_SIMULATE: the simulated NPU cannot be built: {reason}.")
    site = built_once(_wheel_folder(), _unpack_wheel)
    parts = built_once(_parts_folder(), lambda folder: _compile(site, folder))
    return Built(
        site=site,
        libraries=cann_libraries.in_load_order(parts),
        allocator_keys=parts / "allocator_keys.so",
        boxed_kernel=parts / "boxed_kernel.so",
        toolkit=parts / "toolkit",
    )


def _wheel_folder() -> Path:
    return cache_folder("simulator") / f"torch_npu-{TORCH_NPU}-{sys.implementation.cache_tag}-{platform.machine()}"


def _parts_folder() -> Path:
    """Named after everything that goes into them: other sources or another torch are built anew."""
    digest = hashlib.sha256(f"{torch.__version__} {TORCH_NPU} {platform.machine()}".encode())
    for source in [*sorted(NATIVE.rglob("*.*")), Path(cann_libraries.__file__), Path(__file__)]:
        digest.update(source.read_bytes())
    return cache_folder("simulator") / f"native-{digest.hexdigest()[:16]}"


def _unpack_wheel(folder: Path) -> None:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"torch-npu=={TORCH_NPU} --hash=sha256:{WHEEL_HASHES[platform.machine()]}\n")
    _say(f"downloading torch-npu {TORCH_NPU} (without its dependencies)")
    # Its own metadata asks for torch==2.11.0+cpu, which is on no public index.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    _run([*command, "--require-hashes", "-r", requirement, "-d", folder], "torch-npu could not be downloaded")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    wheel.unlink()


def _compile(site: Path, folder: Path) -> None:
    _write_toolkit(folder / "toolkit")
    _say("building CANN's stand-ins and the CPU kernel, once: about 15 s")
    cann_libraries.build(site / "torch_npu", NATIVE / "cann", folder, _run)
    _run(
        ["g++", "-O1", "-shared", "-fPIC", NATIVE / "allocator_keys.cpp", "-o", folder / "allocator_keys.so"],
        "the allocator remedy did not compile",
    )
    kernel: list[str | Path] = [NATIVE / "boxed_kernel.cpp", "-o", folder / "boxed_kernel.so"]
    _run(
        ["g++", "-O2", "-w", *torch_flags(), *kernel, *torch_libraries()],
        "the CPU kernel did not compile",
    )


def _write_toolkit(folder: Path) -> None:
    """What an installed CANN says of itself, where it says it."""
    info = folder / f"{platform.machine()}-linux" / "ascend_toolkit_install.info"
    info.parent.mkdir(parents=True)
    info.write_text(f"package_name=simulated\nversion={TESTED['CANN']}.0\npath={folder}\n")


def _run(command: Sequence[str | Path], failure: str) -> str:
    return native_build.run(command, failure, hidden=("ASCEND_SIMULATE",))


def _say(text: str) -> None:
    print(f"simulated NPU: {text}", file=sys.stderr, flush=True)
