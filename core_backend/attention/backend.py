"""The attention backend: what vLLM asks before it builds anything."""

from typing import Any, ClassVar

import torch
from vllm.v1.attention.backend import AttentionBackend, AttentionType, MultipleOf

from core_backend.attention.impl import AscendAttentionImpl
from core_backend.attention.metadata import AscendMetadataBuilder
from core_backend.device import current_device


class AscendAttentionBackend(AttentionBackend):
    """Attention over a KV cache of the shape that the chip table gives."""

    supported_dtypes: ClassVar[list[torch.dtype]] = [torch.bfloat16, torch.float16, torch.float32]
    supported_kv_cache_dtypes: ClassVar[list[Any]] = ["auto"]  # the model's own dtype

    @staticmethod
    def get_name() -> str:
        # vLLM looks the name up among the members of AttentionBackendEnum; this one is kept for plugins.
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> type[AscendAttentionImpl]:
        return AscendAttentionImpl

    @staticmethod
    def get_builder_cls() -> type[AscendMetadataBuilder]:
        return AscendMetadataBuilder

    @staticmethod
    def get_supported_kernel_block_sizes() -> list[int | MultipleOf]:
        sizes = current_device().hardware.block_sizes
        return [MultipleOf(16)] if sizes is None else list(sizes)

    @classmethod
    def get_preferred_block_size(cls, default_block_size: int) -> int:
        sizes = current_device().hardware.block_sizes
        return default_block_size if sizes is None else sizes[0]

    @staticmethod
    def get_kv_cache_shape(
        num_blocks: int, block_size: int, num_kv_heads: int, head_size: int, cache_dtype_str: str = "auto"
    ) -> tuple[int, ...]:
        """Raises ValueError for a block that the chip's attention does not take."""
        hardware = current_device().hardware
        hardware.check_block(block_size, head_size)
        return hardware.kv_cache_shape(num_blocks, block_size, num_kv_heads, head_size)

    @classmethod
    def supports_attn_type(cls, attn_type: str) -> bool:
        return attn_type in (AttentionType.DECODER, AttentionType.ENCODER_ONLY)
