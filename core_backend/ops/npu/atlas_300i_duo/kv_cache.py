"""The paged KV cache in FRACTAL_NZ: [num_blocks, num_kv_heads * head_size / 16, block_size, 16]."""

from core_backend.ops.npu.kv_cache import write_kv

# The operator writes the layout that the cache's shape has.
__all__ = ["write_kv"]
