"""vLLM's layers, bound to our operators through its register_oot hook."""

from functools import cache
from typing import Any

import torch
from vllm.model_executor.layers.activation import GeluAndMul, SiluAndMul
from vllm.model_executor.layers.attention.mm_encoder_attention import MMEncoderAttention
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.mla import MultiHeadLatentAttentionWrapper
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.mrope import MRotaryEmbedding

from core_backend.attention.encoder import AscendEncoderAttention
from core_backend.attention.mla import AscendMultiHeadLatentAttention
from core_backend.linear import register_linear_layers
from core_backend.lm_head import register_lm_head
from core_backend.moe.layer import register_moe_layers
from core_backend.ops.table import operators


@cache
def register_layers() -> None:
    """Let vLLM build our layers instead of its own; later calls do nothing."""
    RMSNorm.register_oot(AscendRMSNorm, name="RMSNorm")
    SiluAndMul.register_oot(AscendSiluAndMul, name="SiluAndMul")
    GeluAndMul.register_oot(AscendGeluAndMul, name="GeluAndMul")
    RotaryEmbedding.register_oot(AscendRotaryEmbedding, name="RotaryEmbedding")
    MultiHeadLatentAttentionWrapper.register_oot(AscendMultiHeadLatentAttention, name="MultiHeadLatentAttentionWrapper")
    MRotaryEmbedding.register_oot(AscendMRotaryEmbedding, name="MRotaryEmbedding")
    MMEncoderAttention.register_oot(AscendEncoderAttention, name="MMEncoderAttention")
    register_linear_layers()
    register_lm_head()
    register_moe_layers()


class AscendRMSNorm(RMSNorm):
    """RMSNorm, with the residual added first if there is one."""

    def forward_oot(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if self.variance_size_override is not None:
            return self.forward_native(x, residual)
        ops = operators()
        if residual is None:
            return ops.rms_norm(x, self.weight, self.variance_epsilon)
        return ops.add_rms_norm(x, residual, self.weight, self.variance_epsilon)


class AscendSiluAndMul(SiluAndMul):
    """SwiGLU's activation."""

    def forward_oot(self, x: torch.Tensor) -> torch.Tensor:
        return operators().silu_and_mul(x)


class AscendGeluAndMul(GeluAndMul):
    """GeGLU's activation."""

    def forward_oot(self, x: torch.Tensor) -> torch.Tensor:
        return operators().gelu_and_mul(x, self.approximate)


class AscendRotaryEmbedding(RotaryEmbedding):
    """Rotary embedding of queries and keys."""

    def forward_oot(
        self, positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if key is None or positions.dim() != 1 or query.dim() != 2 or kwargs:
            return self.forward_native(positions, query, key, **kwargs)
        return operators().rotary(
            positions,
            query,
            key,
            self._match_cos_sin_cache_dtype(query),
            head_size=self.head_size,
            is_neox_style=self.is_neox_style,
        )


class AscendMRotaryEmbedding(MRotaryEmbedding):
    """Rotary embedding of tokens that have a time, a height and a width; of text alone, the plain one."""

    def forward_oot(
        self,
        positions: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if key is None or offsets is not None:
            return self.forward_native(positions, query, key, offsets)
        cos_sin_cache = self._match_cos_sin_cache_dtype(query)
        settings: dict[str, Any] = {"head_size": self.head_size, "is_neox_style": self.is_neox_style}
        if positions.dim() == 1:
            return operators().rotary(positions, query, key, cos_sin_cache, **settings)
        return operators().mrope(
            positions,
            query,
            key,
            cos_sin_cache,
            mrope_section=self.mrope_section,
            is_interleaved=self.mrope_interleaved,
            **settings,
        )
