"""What sampling may choose from: as single operators, npu_top_k_top_p is not on this chip."""

from core_backend.ops.cpu.sampling import apply_top_k_top_p

__all__ = ["apply_top_k_top_p"]
