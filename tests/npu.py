"""What tests on an NPU, real or simulated, share."""

import torch

from core_backend.device import current_device, npu


def new_cache(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros on the device for keys or values, in the memory layout that the chip wants."""
    if current_device().hardware.kv_layout == "nz":
        return npu.zeros_in_nz(shape, dtype)
    return torch.zeros(shape, dtype=dtype, device="npu")
