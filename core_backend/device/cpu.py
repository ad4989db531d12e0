"""The CPU as a device: its cores."""

import math
import os

from core_backend import cgroup
from core_backend.config import BackendConfig


def num_threads(config: BackendConfig, num_local_ranks: int) -> int:
    """Compute threads of one rank: what was asked for, else its share of the usable cores."""
    return config.num_threads or max(1, num_usable_cores() // num_local_ranks)


def num_usable_cores() -> int:
    """CPU cores this process may use: its affinity, or its control group's quota if that is smaller."""
    cores = len(os.sched_getaffinity(0))
    quota = cgroup.cpu_quota()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))
