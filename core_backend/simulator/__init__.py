"""A simulated NPU: the real torch_npu wheel over a stand-in for CANN, its operators run by CPU kernels that check
the documented rules. `ASCEND_SIMULATE=910B3` turns it on for every Python process that imports torch.

It shows what operators mean and what they refuse. It shows nothing of the device's numerics, speed or asynchrony.
Nothing outside this folder knows of it.
"""

import os


def autoload() -> None:
    """Entry point `torch.backends`: torch calls it at the end of every `import torch`.

    Raises RuntimeError, and with it fails the import, if a simulated device was asked for and cannot be had.
    """
    if not os.environ.get("ASCEND_SIMULATE"):
        return
    from core_backend.simulator.start import start

    start()
