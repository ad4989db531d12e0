"""How much memory there is, and how much of it becomes KV cache."""

from pathlib import Path

GIB = 1 << 30
# 45,000 tokens of a 135M model. More would be idle on a laptop, and touching it costs 2 s per GiB at start.
DEFAULT_KV_CACHE_BYTES = GIB
# What the operating system and other processes are left with.
RESERVED_BYTES = GIB // 2


def total_bytes() -> int:
    """Memory of this machine, or of the cgroup this process is limited to."""
    return min(_meminfo()["MemTotal"], _cgroup_limit())


def available_bytes() -> int:
    """Memory that can still be taken without swapping, inside the cgroup's limit."""
    return min(_meminfo()["MemAvailable"], _cgroup_limit() - _cgroup_usage())


def process_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


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


def weight_bytes(folder: Path, stored_itemsize: int, loaded_itemsize: int) -> int:
    """Memory for the weights in `folder`, loaded with another element size than they are stored with."""
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return stored * loaded_itemsize // stored_itemsize


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


def _cgroup_limit() -> int:
    return _cgroup_value("memory.max", default=1 << 62)


def _cgroup_usage() -> int:
    """The cgroup's memory less its page cache, which is given back on demand."""
    try:
        stat = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
    except OSError:
        return 0
    return max(0, _cgroup_value("memory.current", default=0) - int(stat.get("inactive_file", 0)))


def _cgroup_value(name: str, default: int) -> int:
    """A cgroup v2 value of this process's group, or `default` where there is none. Source: kernel docs, cgroup-v2."""
    try:
        value = (Path("/sys/fs/cgroup") / name).read_text().strip()
    except OSError:
        return default
    return default if value == "max" else int(value)
