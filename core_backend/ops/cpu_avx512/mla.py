"""Multi-head latent attention: see core_backend/ops/cpu."""

from typing import Any

import torch
from torch import Tensor

from core_backend.ops import cpu
from core_backend.ops.cpu_avx512.attention import Plan

# What the kernels have: see core_backend/cpu_kernels/csrc/attention.h.
LANES, MAX_KEY_SIZE, MAX_VALUE_SIZE = 32, 576, 512


def mla_paged_attention(
    query_latent: Tensor,
    query_pe: Tensor,
    latent_cache: Tensor,
    pe_cache: Tensor,
    plan: Plan,
    *,
    scale: float,
    out: Tensor,
) -> None:
    """See core_backend/ops/cpu."""
    latent_size, rope_size = latent_cache.shape[3], pe_cache.shape[3]
    has_kernel = (
        all(x.dtype == torch.bfloat16 for x in (query_latent, query_pe, latent_cache, pe_cache, out))
        and latent_size % LANES == rope_size % LANES == 0
        and latent_size <= MAX_VALUE_SIZE
        and latent_size + rope_size <= MAX_KEY_SIZE
        and latent_cache.is_contiguous()
        and pe_cache.is_contiguous()
        and out.stride()[1:] == (latent_size, 1)
    )
    if not has_kernel:
        cpu.mla_paged_attention(query_latent, query_pe, latent_cache, pe_cache, plan.plain, scale=scale, out=out)
        return
    assert plan.block_table is not None
    query = torch.cat((query_latent, query_pe), dim=-1)
    requests = (plan.query_start_loc, plan.seq_lens, plan.block_table)
    torch.ops.ascend_cpu.latent_attention.default(query, latent_cache, pe_cache, *requests, scale, out)


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
    """See core_backend/ops/cpu."""
    key_size, value_size = key.shape[2] + key_pe.shape[2], value.shape[2]
    has_kernel = (
        all(x.dtype == torch.bfloat16 for x in (query, query_pe, key, key_pe, value))
        and key_size % 2 == 0
        and key_size <= MAX_KEY_SIZE
        and value_size <= MAX_VALUE_SIZE
        and value.stride(2) == 1
    )
    starts: dict[str, Any] = {"query_start_loc": query_start_loc, "kv_start_loc": kv_start_loc}
    if not has_kernel:
        return cpu.mla_varlen_attention(query, query_pe, key, key_pe, value, **starts, causal=causal, scale=scale)
    starts = {name: torch.tensor(loc, dtype=torch.int32) for name, loc in starts.items()}
    return torch.ops.ascend_cpu.varlen_attention_with_lse.default(
        torch.cat((query, query_pe), -1), torch.cat((key, key_pe), -1), value, **starts, scale=scale, causal=causal
    )
