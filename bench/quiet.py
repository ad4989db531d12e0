"""Whether a machine is quiet enough to measure on."""

import os


def warn_if_busy(num_threads: int) -> None:
    """Say so if other work would be measured too."""
    if (load := os.getloadavg()[0]) > num_threads / 4:
        print(f"warning: the machine is busy (load {load:.1f}); these figures will not repeat")
