"""Turning the simulated device on, in a process that has just imported torch."""

import contextlib
import ctypes
import os
import sys
import warnings
from functools import cache
from pathlib import Path

from core_backend.simulator.build import Built, build
from core_backend.simulator.config import SimulatorConfig

# The set of allocator settings' names inside libc10.so; see native/allocator_keys.cpp.
ALLOCATOR_KEYS = "_ZZN3c1016CachingAllocator26AcceleratorAllocatorConfig14getMutableKeysB5cxx11EvE4keys"


@cache
def start() -> None:
    """Import torch_npu over the stand-ins, and route its operators to CPU kernels; later calls do nothing.

    Raises ValueError for a chip that is not simulated, RuntimeError if the parts cannot be built.
    """
    config = SimulatorConfig.from_environment()
    built = build()
    config.put_into_environment()
    _load_environment(built)
    _load_cann(built)
    sys.path.append(str(built.site))
    # The import warns of the wheel's own code; that CANN's environment is missing, it prints.
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        import torch_npu  # noqa: F401

    from core_backend.simulator import chip, collectives, routing
    from core_backend.simulator.emulation import register

    routing.install(ctypes.CDLL(str(built.boxed_kernel)))
    register(config, routing.set_host_argument, routing.set_nz_argument)
    collectives.use_gloo_for_hccl()
    chip.introduce(config)


def _load_environment(built: Built) -> None:
    """What the set_env.sh scripts of CANN set and somebody here looks at."""
    os.environ.setdefault("ASCEND_TOOLKIT_HOME", str(built.toolkit))
    os.environ.setdefault("ATB_HOME_PATH", str(built.toolkit))


def _load_cann(built: Built) -> None:
    import torch

    # torch_npu's libraries look their symbols up among all that are loaded.
    for library in built.libraries:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    if torch.version.cuda:
        libc10 = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
        keys = ctypes.c_char.in_dll(libc10, ALLOCATOR_KEYS)
        ctypes.CDLL(str(built.allocator_keys)).forget_device_specific_keys(ctypes.c_void_p(ctypes.addressof(keys)))


def cann_calls() -> list[str]:
    """Names of the functions of CANN that this process has reached so far."""
    stand_in = ctypes.CDLL("libascendcl.so", os.RTLD_NOLOAD | os.RTLD_GLOBAL)
    stand_in.stand_in_calls.restype = ctypes.c_char_p
    names: bytes = stand_in.stand_in_calls()
    return names.decode().split()
