"""Attention of vision (and audio) encoders: packed sequences, no cache, every token sees all of its own sequence."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from vllm.model_executor.layers.attention.mm_encoder_attention import MMEncoderAttention

from core_backend.ops.table import operators


class AscendEncoderAttention(MMEncoderAttention):
    """vLLM's encoder attention on our operator for packed sequences."""

    @classmethod
    def maybe_recompute_cu_seqlens(
        cls, attn_backend: Any, cu_seqlens: np.ndarray, *args: Any, **kw: Any
    ) -> torch.Tensor:
        """The sequences' ends, left on the host: that is where every layer's operator reads them."""
        return torch.from_numpy(cu_seqlens)

    def forward_oot(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seqlens: torch.Tensor | None = None,
        max_seqlen: torch.Tensor | None = None,
        sequence_lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        query, key, value  [batch, length, heads * head_size] or [batch, length, heads, head_size]
        cu_seqlens         where the sequences of the batch, laid end to end, begin, and the last one's end;
                           None: each row of the batch is one
        returns            the attended values, in the shape of query
        """
        starts = _starts_of_rows(query, key) if cu_seqlens is None else cu_seqlens.tolist()
        ops = operators()
        lengths = [end - start for start, end in pairwise(starts)]
        plan = ops.plan_attention(starts, lengths, None, block_size=1, causal=False)
        packed = query.reshape(-1, self.num_heads, self.head_size)
        out = torch.empty_like(packed)
        ops.varlen_attention(
            packed,
            key.reshape(-1, self.num_kv_heads, self.head_size),
            value.reshape(-1, self.num_kv_heads, self.head_size),
            plan,
            scale=self.scale,
            sliding_window=None,
            out=out,
        )
        return out.view(query.shape)


def _starts_of_rows(query: torch.Tensor, key: torch.Tensor) -> list[int]:
    batch_size, length = query.shape[:2]
    if key.shape[1] != length:
        raise NotImplementedError(
            f"an encoder whose {length} queries attend to {key.shape[1]} keys is not supported: use another model."
        )
    return list(range(0, batch_size * length + 1, length))
