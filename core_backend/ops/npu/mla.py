"""Multi-head latent attention by the fused operator, with the rotary part as its second query and key."""

import torch
import torch_npu
from torch import Tensor

from core_backend.ops.npu.attention import ALL_VISIBLE, CAUSAL, NpuAttentionPlan, causal_mask

WITH_LSE = 1


def mla_paged_attention(
    query_latent: Tensor,
    query_pe: Tensor,
    latent_cache: Tensor,
    pe_cache: Tensor,
    plan: NpuAttentionPlan,
    *,
    scale: float,
    out: Tensor,
) -> None:
    """See ops/cpu. The latent cache is key and value."""
    num_blocks, block_size = latent_cache.shape[:2]
    latent, pe = (kv_cache.view(num_blocks, block_size, -1) for kv_cache in (latent_cache, pe_cache))
    torch_npu.npu_fused_infer_attention_score.out(
        query_latent.contiguous(),
        latent,
        latent,
        query_rope=query_pe.contiguous(),
        key_rope=pe,
        atten_mask=causal_mask(query_latent.device),
        actual_seq_lengths=plan.query_ends,
        actual_seq_lengths_kv=plan.seq_lens,
        block_table=plan.block_table,
        num_heads=query_latent.shape[1],
        num_key_value_heads=1,
        scale=scale,
        input_layout="TND",
        sparse_mode=CAUSAL,
        block_size=block_size,
        out=[out, query_latent.new_empty(1)],
    )


def mla_varlen_attention(
    query: Tensor,
    query_pe: Tensor,
    key: Tensor,
    key_pe: Tensor,
    value: Tensor,
    *,
    query_start_loc: list[int],
    kv_start_loc: list[int],
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """See ops/cpu."""
    out, lse = torch_npu.npu_fused_infer_attention_score(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        query_rope=query_pe.contiguous(),
        key_rope=key_pe.contiguous(),  # often one head, expanded
        atten_mask=causal_mask(query.device) if causal else None,
        actual_seq_lengths=query_start_loc[1:],
        actual_seq_lengths_kv=kv_start_loc[1:],
        num_heads=query.shape[1],
        num_key_value_heads=key.shape[1],
        scale=scale,
        input_layout="TND",
        sparse_mode=CAUSAL if causal else ALL_VISIBLE,
        softmax_lse_flag=True,
    )
    # The operator marks a query without keys by +inf, npu_attention_update and the CPU by -inf.
    return out, lse.squeeze(-1).masked_fill_(lse.squeeze(-1) == float("inf"), float("-inf"))


def merge_attention(outs: list[Tensor], lses: list[Tensor]) -> Tensor:
    """See ops/cpu."""
    shape = outs[0].shape
    smallest = torch.finfo(torch.float32).min  # -inf minus -inf would be NaN
    merged, _ = torch_npu.npu_attention_update(
        [lse.flatten().clamp(min=smallest) for lse in lses],
        [out.view(-1, shape[-1]) for out in outs],
        WITH_LSE,
    )
    return merged.view(shape)
