"""`python -m core_backend.simulator`: build the simulated NPU's parts now, instead of on first use."""

import os
import sys


def main() -> None:
    """Exits with 1 and the reason if they cannot be built here."""
    os.environ.pop("ASCEND_SIMULATE", None)  # importing torch would start what is not built yet
    from core_backend.simulator.build import build, why_unavailable

    if (reason := why_unavailable()) is not None:
        sys.exit(reason)
    build()


if __name__ == "__main__":
    main()
