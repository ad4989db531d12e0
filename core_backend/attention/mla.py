"""Latent attention (MLA): the cache holds one small vector per token, from which keys and values unfold.

Tokens that decode are attended to in the latent space, with the unfolding folded into query and result; longer
stretches of new tokens with their keys and values unfolded. Source: arXiv 2405.04434.
"""

from typing import Any, ClassVar

import torch
from vllm.model_executor.layers.attention.mla_attention import MLAAttention
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.mla import MultiHeadLatentAttentionWrapper
from vllm.v1.attention.backend import AttentionBackend, AttentionLayer, MLAAttentionImpl, MultipleOf

from core_backend.attention.backend import AscendAttentionBackend
from core_backend.attention.mla_metadata import AscendMLAMetadata, AscendMLAMetadataBuilder
from core_backend.device import current_device
from core_backend.linear import PackedLinearMethod
from core_backend.ops.table import operators

LatentCache = tuple[torch.Tensor, torch.Tensor]


class AscendMLABackend(AttentionBackend):
    """Attention over a cache of latent vectors."""

    supported_dtypes: ClassVar[list[torch.dtype]] = AscendAttentionBackend.supported_dtypes
    supported_kv_cache_dtypes: ClassVar[list[Any]] = ["auto"]

    @staticmethod
    def get_name() -> str:
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> type["AscendMLAImpl"]:
        return AscendMLAImpl

    @staticmethod
    def get_builder_cls() -> type[AscendMLAMetadataBuilder]:
        return AscendMLAMetadataBuilder

    @classmethod
    def is_mla(cls) -> bool:
        return True

    @staticmethod
    def get_supported_kernel_block_sizes() -> list[int | MultipleOf]:
        return AscendAttentionBackend.get_supported_kernel_block_sizes()

    @classmethod
    def get_preferred_block_size(cls, default_block_size: int) -> int:
        return AscendAttentionBackend.get_preferred_block_size(default_block_size)

    @staticmethod
    def get_kv_cache_shape(
        num_blocks: int, block_size: int, num_kv_heads: int, head_size: int, cache_dtype_str: str = "auto"
    ) -> tuple[int, ...]:
        """head_size: latent and rotary elements together; split_latent_cache parts them."""
        return (num_blocks, block_size, head_size)


def split_latent_cache(cache: torch.Tensor, latent_size: int) -> LatentCache:
    """The memory of a layer's cache as two: the operators take latent and rotary elements apart.

    cache    [num_blocks, block_size, latent_size + rope_size]; only its memory counts
    returns  [num_blocks, block_size, 1, latent_size] and [num_blocks, block_size, 1, rope_size]
    """
    num_blocks, block_size, size = cache.shape
    num_slots = num_blocks * block_size
    latent, pe = cache.flatten().split((num_slots * latent_size, num_slots * (size - latent_size)))
    return latent.view(num_blocks, block_size, 1, -1), pe.view(num_blocks, block_size, 1, -1)


class AscendMLAImpl(MLAAttentionImpl[AscendMLAMetadata]):
    """One layer of latent attention. vLLM's MLAAttention folds the unfolding into query and result for forward_mqa."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int,
        alibi_slopes: list[float] | None,
        sliding_window: int | None,
        kv_cache_dtype: str,
        logits_soft_cap: float | None,
        attn_type: str,
        kv_sharing_target_layer_name: str | None,
        *,
        kv_lora_rank: int,
        qk_nope_head_dim: int,
        qk_rope_head_dim: int,
        v_head_dim: int,
        kv_b_proj: Any,
        indexer: object | None = None,
        **others: Any,
    ) -> None:
        """Raises NotImplementedError for sizes that the chip's operators do not take, and for sparse attention."""
        if indexer is not None:
            raise NotImplementedError("sparse latent attention is not supported yet: choose another model.")
        current_device().hardware.check_latent_sizes(kv_lora_rank, qk_rope_head_dim, qk_nope_head_dim, v_head_dim)
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = float(scale)
        self.kv_lora_rank = kv_lora_rank
        self.qk_nope_head_dim = qk_nope_head_dim
        self.qk_rope_head_dim = qk_rope_head_dim
        self.v_head_dim = v_head_dim
        self.kv_b_proj = kv_b_proj

    def do_kv_cache_update(
        self,
        kv_c_normed: torch.Tensor,
        k_pe: torch.Tensor,
        kv_cache: LatentCache | torch.Tensor,
        slot_mapping: torch.Tensor | None,
        kv_cache_dtype: str,
        k_scale: torch.Tensor,
    ) -> None:
        """Store this step's latent vectors [num_tokens, latent_size] and rotary parts [num_tokens, 1, rope_size]."""
        if slot_mapping is None or isinstance(kv_cache, torch.Tensor):  # a dummy step before there is a cache
            return
        num_tokens = slot_mapping.shape[0]
        latent_cache, pe_cache = kv_cache
        ops = operators()
        ops.write_kv(
            kv_c_normed[:num_tokens].unsqueeze(1).contiguous(),
            k_pe[:num_tokens].view(num_tokens, 1, -1).contiguous(),
            latent_cache,
            pe_cache,
            ops.prepare_slot_mapping(slot_mapping),
        )

    def forward_mqa(
        self,
        q: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        kv_c_and_k_pe_cache: Any,
        attn_metadata: AscendMLAMetadata,
        layer: AttentionLayer,
    ) -> tuple[torch.Tensor, None]:
        """Decoding tokens over the cache, in the latent space.

        q        [num_tokens, num_heads, latent_size] and [num_tokens, num_heads, rope_size]
        returns  [num_tokens, num_heads, latent_size]
        """
        query_latent, query_pe = q
        out = torch.empty(query_latent.shape, dtype=query_latent.dtype, device=query_latent.device)
        latent_cache, pe_cache = kv_c_and_k_pe_cache
        attn_metadata.ops.mla_paged_attention(
            query_latent, query_pe, latent_cache, pe_cache, attn_metadata.decode, scale=self.scale, out=out
        )
        return out, None

    def forward_mha(
        self,
        q: torch.Tensor,
        kv_c_normed: torch.Tensor,
        k_pe: torch.Tensor,
        kv_c_and_k_pe_cache: Any,
        attn_metadata: AscendMLAMetadata,
        k_scale: torch.Tensor,
        output: torch.Tensor,
    ) -> None:
        """New tokens among themselves, then over each stretch of their context; the parts are merged.

        q       [num_tokens, num_heads, nope_size + rope_size]
        output  [num_tokens, num_heads * value_size]
        """
        prefill = attn_metadata.prefill
        assert prefill is not None
        starts = prefill.query_start_loc
        parts = [self._attend(attn_metadata, q, kv_c_normed, k_pe, starts, causal=True)]
        latent_cache, pe_cache = kv_c_and_k_pe_cache
        for chunk in prefill.context:
            latent, pe = (cache.flatten(0, 2).index_select(0, chunk.slots) for cache in (latent_cache, pe_cache))
            parts.append(self._attend(attn_metadata, q, latent, pe, chunk.start_loc, causal=False))
        outs, lses = zip(*parts, strict=True)
        merged = outs[0] if len(outs) == 1 else attn_metadata.ops.merge_attention(list(outs), list(lses))
        output.copy_(merged.flatten(1))

    def _attend(
        self,
        attn_metadata: AscendMLAMetadata,
        q: torch.Tensor,
        latent: torch.Tensor,
        pe: torch.Tensor,
        kv_start_loc: list[int],
        *,
        causal: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Over tokens whose keys and values are unfolded from latent [num_tokens, latent_size]."""
        assert attn_metadata.prefill is not None
        unfolded = self.kv_b_proj(latent)[0].view(len(latent), self.num_heads, -1)
        key, value = unfolded.split((self.qk_nope_head_dim, self.v_head_dim), dim=-1)
        query, query_pe = q.split((self.qk_nope_head_dim, self.qk_rope_head_dim), dim=-1)
        return attn_metadata.ops.mla_varlen_attention(
            query,
            query_pe,
            key,
            pe.view(len(latent), 1, -1).expand(-1, self.num_heads, -1),
            value,
            query_start_loc=attn_metadata.prefill.query_start_loc,
            kv_start_loc=kv_start_loc,
            causal=causal,
            scale=self.scale,
        )


class AscendMLAAttention(MLAAttention):
    """vLLM's attention, whose matrices of the unfolding lie on a CPU as torch.bmm reads them.

    As views of the projection's weight, as they are on NPUs, torch would copy them in every layer of every step.
    """

    W_UK_T: torch.Tensor  # [num_heads, nope_size, latent_size]
    W_UV: torch.Tensor  # [num_heads, latent_size, value_size]

    def process_weights_after_loading(self, act_dtype: torch.dtype) -> None:
        super().process_weights_after_loading(act_dtype)
        if current_device().type == "cpu":
            self.W_UK_T, self.W_UV = self.W_UK_T.contiguous(), self.W_UV.contiguous()


class AscendMultiHeadLatentAttention(MultiHeadLatentAttentionWrapper):
    """vLLM's layer, whose projection of keys and values keeps its plain weight: it is read to be folded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mla_attn.__class__ = AscendMLAAttention  # vLLM has no hook for the attention that its layer makes
        if type(self.kv_b_proj.quant_method) is PackedLinearMethod:
            self.kv_b_proj.quant_method = UnquantizedLinearMethod()
