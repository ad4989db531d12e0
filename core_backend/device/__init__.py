"""The device this process runs on: which one and why (choice.py), and its runtime (cpu.py, npu.py).

Besides ops/npu, device/npu.py is the only module that may touch torch_npu.
"""

from core_backend.device.choice import Device, choose_device, current_device
from core_backend.device.cpu import num_threads, num_usable_cores

__all__ = ["Device", "choose_device", "current_device", "num_threads", "num_usable_cores"]
