"""FRACTAL_NZ, the matrix units' own layout: the cast of weights, and the 310P's KV cache and masks."""

from torch import Tensor

from core_backend.simulator.emulation.registry import emulates
from core_backend.simulator.emulation.rules import ALL, contiguous, rule

FORMAT_CAST = "op-plugin docs, torch_npu-npu_format_cast"
ND, FRACTAL_NZ = 2, 29
NZ_COLUMNS = 16  # elements of two bytes in a row of 32 bytes


@emulates("npu::npu_format_cast", source=FORMAT_CAST, families=ALL)
def npu_format_cast(
    input: Tensor, acl_format: int, *, customize_dtype: int | None = None, input_dtype: int | None = None
) -> Tensor:
    """The same values in another storage format, which operators see through: here, a copy."""
    rule(
        acl_format in (ND, FRACTAL_NZ),
        "only ND (2) and FRACTAL_NZ (29) are used here",
        FORMAT_CAST,
        acl_format=acl_format,
    )
    rule(2 <= input.dim() <= 6, "2 to 6 dimensions", FORMAT_CAST, shape=tuple(input.shape))
    rule(input.numel() > 0, "not empty", FORMAT_CAST, shape=tuple(input.shape))
    contiguous(FORMAT_CAST, input=input)
    return input.clone()


def nz_cache_as_nd(cache: Tensor, num_kv_heads: int) -> Tensor:
    """The values of a KV cache in NZ as [num_blocks, block_size, num_kv_heads, head_size].

    cache  [num_blocks, num_kv_heads * head_size / 16, block_size, 16]; feature f is at [f // 16, slot, f % 16]
    """
    num_blocks, _, block_size, _ = cache.shape
    return cache.permute(0, 2, 1, 3).reshape(num_blocks, block_size, num_kv_heads, -1)
