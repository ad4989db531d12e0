"""Linear layers: weights in FRACTAL_NZ, as on the other chips, but float16 only."""

from core_backend.ops.npu.linear import pack_linear_weight

__all__ = ["pack_linear_weight"]
