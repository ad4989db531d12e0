"""Which operators the boxed kernel takes over from torch_npu, and what it was given."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Allocation, views and copies between host and device stay torch_npu's own: they need no operator of the chip.
KEPT = {
    "npu::get_npu_format",
    *(
        f"aten::{name}"
        for name in """
            empty.memory_format empty_strided empty_like new_empty_strided as_strided view _reshape_alias unfold
            view_as_real view_as_complex set_ set_.source_Storage set_.source_Tensor
            set_.source_Storage_storage_offset resize_ resize_as_ record_stream is_pinned _pin_memory is_set_to
            _copy_from_and_resize _copy_from _to_copy _lazy_clone empty_with_format empty_with_format.names
            unsafe_empty_with_format empty_with_swapped_memory
        """.split()  # noqa: SIM905
    ),
}
# Composites of smaller operators: taken whole they cost one call.
WHOLE = {"aten::linear", "aten::scaled_dot_product_attention"}
NAMESPACES = ("aten", "npu", "atb", "c10d")

_library: ctypes.CDLL | None = None


def install(library: ctypes.CDLL) -> None:
    """Register the boxed kernel for about 2,300 operators."""
    global _library
    _library = library
    library.simulator_launches.restype = ctypes.c_char_p
    library.simulator_start()
    with _silent():  # torch warns of each kernel that is replaced
        for name in torch._C._dispatch_get_all_op_names():
            namespace = name.split("::")[0]
            if namespace not in NAMESPACES or name in KEPT:
                continue
            if _is_for_npu(name, namespace):
                library.simulator_box(name.encode())
            if namespace != "c10d" and _has_kernel(name, "AutogradPrivateUse1"):
                library.simulator_without_autograd(name.encode())


def set_host_argument(operator: str, argument: str) -> None:
    """The device reads this argument of an operator on the host: an npu tensor there is an error."""
    assert _library is not None
    _library.simulator_set_host_argument(operator.encode(), argument.encode())


def set_nz_argument(operator: str, argument: str) -> None:
    """The device expects this argument's memory in FRACTAL_NZ."""
    assert _library is not None
    _library.simulator_set_nz_argument(operator.encode(), argument.encode())


@contextmanager
def launches() -> Iterator[list[str]]:
    """The operators that the device was given inside the `with`, in order; filled on leaving it."""
    assert _library is not None, "no simulated device in this process"
    names: list[str] = []
    _library.simulator_listen(True)
    try:
        yield names
    finally:
        _library.simulator_listen(False)
        names += _library.simulator_launches().decode().split()


def _is_for_npu(name: str, namespace: str) -> bool:
    return _has_kernel(name, "PrivateUse1") or (namespace == "aten" and _has_kernel(name, "CPU")) or name in WHOLE


def _has_kernel(name: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing reaches standard error: these warnings come from C++."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
