"""What this process's control group grants it: memory and CPU time, in cgroup v2 and v1.

Source: Linux kernel documentation, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst, scheduler/sched-bwc.rst.
"""

from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
NO_LIMIT = 1 << 60  # v1 writes a number of this size where there is no limit


def memory_limit() -> int | None:
    """Bytes the group may use, or None without a limit."""
    return _limit(_read("memory.max", v1="memory/memory.limit_in_bytes"))


def memory_usage() -> int:
    """Bytes the group uses, less its inactive page cache, which is given back on demand; 0 if unknown."""
    used = _read("memory.current", v1="memory/memory.usage_in_bytes")
    stat = _read("memory.stat", v1="memory/memory.stat")
    if used is None or stat is None:
        return 0
    values = dict(line.split() for line in stat.splitlines())
    inactive = int(values.get("total_inactive_file", values.get("inactive_file", 0)))
    return max(0, int(used) - inactive)


def cpu_quota() -> float | None:
    """Cores the group may keep busy, or None without a limit."""
    if (both := _read("cpu.max")) is not None:
        quota, period = both.split()
    else:
        quota = _read("", v1="cpu/cpu.cfs_quota_us") or "-1"
        period = _read("", v1="cpu/cpu.cfs_period_us") or "100000"
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _limit(value: str | None) -> int | None:
    if value is None or value == "max" or int(value) >= NO_LIMIT:
        return None
    return int(value)


def _read(name: str, v1: str | None = None) -> str | None:
    """The file of this process's group, else of the mount's root, which is the group's own inside a container."""
    for file in [*_v2_files(name), *(_v1_files(v1) if v1 else [])]:
        try:
            return file.read_text().strip()
        except OSError:
            continue
    return None


def _v2_files(name: str) -> list[Path]:
    return [MOUNT / _own_path("").lstrip("/") / name, MOUNT / name] if name else []


def _v1_files(name: str) -> list[Path]:
    controller, file = name.split("/")
    return [MOUNT / controller / _own_path(controller).lstrip("/") / file, MOUNT / controller / file]


def _own_path(controller: str) -> str:
    """The path of this process's group in the hierarchy of `controller`; "" names v2's only hierarchy."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return "/"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"
