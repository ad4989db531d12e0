"""What this machine can do at best, by torch: read memory, and multiply bfloat16 matrices."""

import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from answering import answer

REPEATS = 10
SIDES = (512, 1024, 2048, 4096)  # of the matrices that are multiplied; small ones stay in the caches
ROW = 1024  # elements of a row of the matrix that is read


class MachineLimits:
    """Each is the best of several tries."""

    def __init__(self, num_threads: int) -> None:
        torch.set_num_threads(num_threads)

    def versions(self) -> dict[str, str]:
        return {"torch": version("torch")}

    def bytes_per_second(self, num_bytes: int) -> float:
        """Of reading `num_bytes` again and again, from memory or from whatever cache they fit into.

        By those of torch's operators that read fastest: one on one CPU, another on the next.
        """
        matrix, vector = torch.ones(num_bytes // 4 // ROW, ROW), torch.ones(ROW)
        ways = (lambda: matrix @ vector, lambda: matrix.sum(), lambda: matrix.max())
        return matrix.nbytes / min(_least_seconds(way) for way in ways)

    def flops_per_second(self) -> float:
        """Of a bfloat16 matrix product, of the size that is fastest."""
        return max(self._flops_per_second(side) for side in SIDES)

    def _flops_per_second(self, side: int) -> float:
        left, right = (torch.randn(side, side, dtype=torch.bfloat16) for _ in range(2))
        return 2 * side**3 / _least_seconds(lambda: left @ right)


def _least_seconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    answer(lambda: MachineLimits(int(sys.argv[1])))
