import os

import pytest


@pytest.fixture(autouse=True)
def simulated_chip() -> str:
    """These are tests of the simulator itself."""
    if chip := os.environ.get("ASCEND_SIMULATE"):
        return chip
    pytest.skip("there is a real NPU here, so nothing is simulated")
