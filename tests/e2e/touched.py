"""Which functions of CANN a fork of the launcher has inherited calls of. Run by tests/e2e/test_npu.py."""

import json

from core_backend.simulator.start import cann_calls


def main() -> None:
    print(json.dumps({"calls": sorted(set(cann_calls()))}), flush=True)


if __name__ == "__main__":
    main()
