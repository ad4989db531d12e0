"""The NPU's runtime, through torch_npu, which its functions need and importing this module does not."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed import ProcessGroup
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack, _pop_mode

from core_backend.hardware import Hardware, hardware_of

FRACTAL_NZ = 29  # ACL_FORMAT_FRACTAL_NZ


def why_unavailable() -> str | None:
    """Why no NPU can be used, with the remedy; None if one can."""
    try:
        import torch_npu  # noqa: F401
    except Exception as error:  # whatever CANN's absence makes of the import
        return f"torch_npu cannot be imported: {error} (run `ascend-adapters doctor`)"
    if torch.npu.device_count() == 0:
        return "torch_npu sees no NPU (ASCEND_RT_VISIBLE_DEVICES, /dev/davinci*; run `ascend-adapters doctor`)"
    return None


def hardware() -> Hardware:
    """The row of the chip table. Raises RuntimeError for a chip that is not supported.

    By the chip's name: asking torch_npu for its number would start the device, in processes that only serve too.
    """
    import torch_npu

    return hardware_of(torch_npu._C._npu_getDeviceName())


def torch_npu_version() -> str:
    """As installed."""
    import torch_npu

    return str(torch_npu.__version__)


def missing_operators(names: Iterable[str]) -> list[str]:
    """Those of `names` (name, or name.overload) that torch_npu does not have."""
    import torch_npu

    def has(name: str) -> bool:
        found: Any = torch_npu
        for part in name.split("."):
            found = getattr(found, part, None)
        return found is not None

    return [name for name in names if not has(name)]


def count() -> int:
    """How many NPUs this process may use."""
    return int(torch.npu.device_count())


def name() -> str:
    """The chip as torch_npu names it."""
    return str(torch.npu.get_device_name(0))


def start(index: int) -> torch.device:
    """Make device `index` this process's, before anything is put on it."""
    torch.npu.set_device(index)
    # Otherwise weights silently stay ND when they are cast to FRACTAL_NZ.
    torch.npu.config.allow_internal_format = True
    return torch.device("npu", index)


def memory() -> tuple[int, int]:
    """(free, total) bytes of device memory."""
    free, total = torch.npu.mem_get_info()
    return int(free), int(total)


def allocated_bytes() -> int:
    """What torch's tensors take now."""
    return int(torch.npu.memory_allocated())


def zeros_in_nz(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor whose memory is in FRACTAL_NZ, which a view of another tensor cannot be."""
    import torch_npu

    empty: torch.Tensor = torch_npu.empty_with_format(shape, dtype=dtype, device="npu", acl_format=FRACTAL_NZ)
    return empty.zero_()


def reserved_bytes() -> int:
    """What torch's allocator holds, used or not."""
    return int(torch.npu.memory_reserved())


def peak_allocated_bytes() -> int:
    """The most that torch's tensors took since reset_peak_memory."""
    return int(torch.npu.max_memory_allocated())


def reset_peak_memory() -> None:
    """Begin anew to look for the peak."""
    torch.npu.reset_peak_memory_stats()


def synchronize() -> None:
    """Wait for everything that was launched."""
    torch.npu.synchronize()


def collective_name(group: ProcessGroup) -> str:
    """What operators that communicate by themselves know a group of ranks by."""
    backend: Any = group._get_backend(torch.device("npu"))
    return str(backend.get_hccl_comm_name(torch.distributed.get_rank(group)))


def empty_cache() -> None:
    """Give unused memory of torch's allocator back to the device."""
    torch.npu.empty_cache()


def new_graph() -> Any:
    """A graph to capture into."""
    return torch.npu.NPUGraph()


@contextmanager
def capture(graph: Any, pool: Any) -> Iterator[None]:
    """What is launched inside goes into `graph`, on a stream of its own; attention's lengths can be updated later.

    After a failure the process is as before: torch_npu's own context leaves its stream and its dispatch mode in
    place where ending the capture fails too.
    """
    stream, modes = torch.npu.current_stream(), len(_get_current_dispatch_mode_stack())
    try:
        with torch.npu.graph(graph, pool=pool, auto_dispatch_capture=True):
            yield
    finally:
        torch.npu.set_stream(stream)
        while len(_get_current_dispatch_mode_stack()) > modes:
            _pop_mode()


def wait_for_stream() -> None:
    """Wait for what was launched on the current stream."""
    torch.npu.current_stream().synchronize()


def stand_ins_for_cuda() -> dict[str, Any]:
    """The names of torch.cuda that vLLM's runner uses on every platform, as torch_npu has them."""
    names = (
        "Event",
        "Stream",
        "current_stream",
        "default_stream",
        "mem_get_info",
        "set_stream",
        "stream",
        "synchronize",
    )
    return {name: getattr(torch.npu, name) for name in names}


def stand_ins_for_accelerator() -> dict[str, Any]:
    """The names of torch.accelerator that fail on an NPU: they expect another kind of allocator than torch_npu's."""
    names = (
        "empty_cache",
        "max_memory_allocated",
        "max_memory_reserved",
        "memory_allocated",
        "memory_reserved",
        "memory_stats",
        "reset_accumulated_memory_stats",
        "reset_peak_memory_stats",
    )
    return {name: getattr(torch.npu, name) for name in names}


def seed_all(seed: int) -> None:
    """Seed the generators of all devices."""
    torch.npu.manual_seed_all(seed)
