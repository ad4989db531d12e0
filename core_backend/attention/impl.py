"""One attention layer's step: which operators, in which order. The same on every device."""

from typing import Any

import torch
from vllm.v1.attention.backend import AttentionImpl, AttentionLayer, AttentionType

from core_backend.attention.metadata import AscendMetadata
from core_backend.device import current_device


class AscendAttentionImpl(AttentionImpl[AscendMetadata]):
    """Writes the step's keys and values to the cache, then attends over it."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = AttentionType.DECODER,
        kv_sharing_target_layer_name: str | None = None,
        sinks: torch.Tensor | None = None,
        **extra: Any,
    ) -> None:
        """Raises NotImplementedError for a variant of attention that the operators or the chip do not have."""
        _refuse_unsupported(alibi_slopes=alibi_slopes, **extra)
        hardware = current_device().hardware
        variants = {
            "sliding window attention": sliding_window,
            "attention sinks": sinks,
            "soft-capped attention": logits_soft_cap or None,
        }
        for variant, value in variants.items():
            if value is not None:
                hardware.check_feature(variant)
        if attn_type == AttentionType.DECODER:
            hardware.check_heads(num_heads, num_kv_heads or num_heads, head_size)
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = float(scale)
        self.num_kv_heads = num_kv_heads or num_heads
        self.sliding_window = sliding_window
        self.kv_cache_dtype = kv_cache_dtype
        self.attn_type = attn_type
        self.kv_sharing_target_layer_name = kv_sharing_target_layer_name
        # Some models say 0 for no cap.
        self.variant: dict[str, Any] = {"sinks": sinks, "logits_soft_cap": logits_soft_cap or None}

    def forward(
        self,
        layer: AttentionLayer,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: AscendMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attention of one layer for one step.

        query, output  [num_tokens, num_heads, head_size]; rows past the step's tokens are padding
        key, value     [num_tokens, num_kv_heads, head_size]
        kv_cache       [2, ...]: keys and values in the chip's layout (hardware.py)
        """
        if attn_metadata is None:  # a dummy step of vLLM's: no requests, only shapes
            return output.fill_(0)
        step = slice(0, attn_metadata.num_actual_tokens)
        settings: dict[str, Any] = {"scale": self.scale, "sliding_window": self.sliding_window, "out": output[step]}
        if self.attn_type == AttentionType.ENCODER_ONLY:
            attn_metadata.ops.varlen_attention(query[step], key[step], value[step], attn_metadata.plan, **settings)
            return output
        key_cache, value_cache = kv_cache[0], kv_cache[1]
        # A layer that shares another's cache finds its keys and values already written there.
        if self.kv_sharing_target_layer_name is None:
            attn_metadata.ops.write_kv(key[step], value[step], key_cache, value_cache, attn_metadata.slot_mapping)
        attn_metadata.ops.paged_attention(
            query[step], key_cache, value_cache, attn_metadata.plan, **self.variant, **settings
        )
        return output


def _refuse_unsupported(**variants: Any) -> None:
    asked_for = sorted(name for name, value in variants.items() if value is not None)
    if asked_for:
        raise NotImplementedError(
            f"this model's attention uses {', '.join(asked_for)}, which the operator sets do not have yet: "
            "choose another model."
        )
