"""What this machine can do at best, by torch: read memory, and multiply bfloat16 matrices."""

import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from answering import answer

REPEATS = 10
SIDE = 4096  # of the matrices that are multiplied


class MachineLimits:
    """Each is the best of several tries."""

    def __init__(self, num_threads: int) -> None:
        torch.set_num_threads(num_threads)

    def versions(self) -> dict[str, str]:
        return {"torch": version("torch")}

    def bytes_per_second(self, num_bytes: int) -> float:
        """Of reading `num_bytes` again and again, from memory or from whatever cache they fit into."""
        numbers = torch.ones(num_bytes // 8, dtype=torch.int64)
        return num_bytes / _least_seconds(lambda: numbers.max())

    def flops_per_second(self) -> float:
        """Of a bfloat16 matrix product."""
        left, right = (torch.randn(SIDE, SIDE, dtype=torch.bfloat16) for _ in range(2))
        return 2 * SIDE**3 / _least_seconds(lambda: left @ right)


def _least_seconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    answer(lambda: MachineLimits(int(sys.argv[1])))
