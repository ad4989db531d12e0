"""How much memory there is, and how much of it becomes KV cache."""

import math
import os
from pathlib import Path

from safetensors import safe_open

from core_backend import cgroup

GIB = 1 << 30
# 45,000 tokens of a 135M model. More would be idle on a laptop, and touching it costs 2 s per GiB at start.
DEFAULT_KV_CACHE_BYTES = GIB
# What the operating system and other processes are left with.
RESERVED_BYTES = GIB // 2
NO_LIMIT = 1 << 62


def total_bytes() -> int:
    """Memory of this machine, or what the control group of this process may use if that is less."""
    return min(_meminfo()["MemTotal"], cgroup.memory_limit() or NO_LIMIT)


def available_bytes() -> int:
    """Memory that can still be taken without swapping, inside the control group's limit."""
    limit = cgroup.memory_limit()
    in_group = NO_LIMIT if limit is None else limit - cgroup.memory_usage()
    return min(_meminfo()["MemAvailable"], in_group)


def process_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def kv_cache_bytes(available: int, requested: int | None, request_bytes: int) -> int:
    """How many bytes the KV cache gets.

    available      bytes free once the weights are in place
    requested      what the user asked for; None: 1 GiB, or two requests of full length if that is more, but
                   never more than half of what is available
    request_bytes  what one request of full length takes
    Raises ValueError if the memory does not suffice.
    """
    usable = max(0, available - RESERVED_BYTES)
    default = min(max(DEFAULT_KV_CACHE_BYTES, 2 * request_bytes), usable // 2)
    wanted = default if requested is None else requested
    if wanted > usable or wanted == 0:
        raise ValueError(
            f"not enough memory for the KV cache: {_gib(wanted)} wanted, {_gib(usable)} free after the weights "
            f"({_gib(RESERVED_BYTES)} are left to the system). Lower kv_cache_memory_bytes or max_model_len, "
            "close another engine, or use a smaller model."
        )
    return wanted


def share_for_kv_cache(utilization: float, total: int, used: int) -> int:
    """Bytes for the KV cache when the engine may use a share of the machine's memory, and uses `used` already.

    Raises ValueError if the share is used up before there is a KV cache.
    """
    left = int(utilization * total) - used
    if left <= 0:
        raise ValueError(
            f"gpu_memory_utilization={utilization} of {_gib(total)} is less than the {_gib(used)} that the engine "
            "takes without a KV cache: raise it, or give kv_cache_memory_bytes instead."
        )
    return left


def weight_bytes(folder: Path, itemsize: int, packed_bits: int = 32) -> int:
    """Memory for the weights in `folder`: floats of any size are loaded with `itemsize`, others as they are stored.

    packed_bits  of the integers in int32 words, which become floats too; 32: there are none
    """
    needed = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no dict)
                part = tensors.get_slice(name)
                needed += math.prod(part.get_shape()) * _bytes_of_one(part.get_dtype(), itemsize, packed_bits)
    return needed


def _bytes_of_one(dtype: str, itemsize: int, packed_bits: int) -> int:
    """Memory for one element, by safetensors' name of its dtype."""
    if dtype.startswith(("F", "BF")):
        return itemsize
    if dtype == "I32" and packed_bits < 32:
        return 32 // packed_bits * itemsize
    return int(dtype.lstrip("IUBOL") or 8) // 8


def check_weights_fit(needed: int, available: int) -> None:
    """Raises ValueError if weights of `needed` bytes cannot be held in memory: a clear word before the OOM killer's."""
    usable = max(0, available - RESERVED_BYTES)
    if needed > usable:
        raise ValueError(
            f"not enough memory for the weights: {_gib(needed)} needed, {_gib(usable)} free "
            f"({_gib(RESERVED_BYTES)} are left to the system). Close another engine, or use a smaller model or dtype."
        )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB"


def _meminfo() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {name.rstrip(":"): int(kib) * 1024 for name, kib, *_ in lines}
