"""Attention over the paged KV cache, whose blocks of bfloat16 are tiled for the kernel (core_backend/cpu_kernels)."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core_backend.ops import cpu

# What the kernel has: see core_backend/cpu_kernels/csrc/attention.h.
TILE_TOKENS, TILE_COLUMNS, MAX_HEAD_SIZE = 16, 32, 256


@dataclass(slots=True)
class Plan:
    """One step's requests as the kernel takes them, and as the plain operators do for what has no kernel."""

    query_start_loc: Tensor  # [num_reqs + 1] int32
    seq_lens: Tensor  # [num_reqs] int32
    block_table: Tensor | None  # [num_reqs, max_num_blocks] int32
    causal: bool
    settings: dict[str, Any]  # of cpu.plan_attention
    _plain: list[Any] = field(default_factory=list)

    @property
    def is_decode(self) -> bool:
        """Whether every request has one token, and its keys and values in the cache."""
        return self.block_table is not None and bool((self.query_start_loc.diff() == 1).all())

    def tensors(self) -> list[Tensor]:
        """What the kernel reads of the requests."""
        return [x for x in (self.query_start_loc, self.seq_lens, self.block_table) if x is not None]

    @property
    def plain(self) -> Any:
        """What cpu.plan_attention makes of it, once."""
        if not self._plain:
            plan = cpu.plan_attention(
                self.query_start_loc.tolist(),
                self.seq_lens.tolist(),
                self.block_table,
                causal=self.causal,
                **self.settings,
            )
            self._plain.append(plan)
        return self._plain[0]


def plan_attention(
    query_start_loc: list[int],
    seq_lens: list[int],
    block_table: Tensor | None,
    *,
    block_size: int,
    causal: bool,
    for_graph: bool = False,
) -> Plan:
    """See core_backend/ops/cpu."""
    return Plan(
        torch.tensor(query_start_loc, dtype=torch.int32),
        torch.tensor(seq_lens, dtype=torch.int32),
        block_table,
        causal,
        {"block_size": block_size, "for_graph": for_graph},
    )


def write_kv(key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_mapping: Tensor) -> None:
    """See core_backend/ops/cpu."""
    key, value = (x if x.stride(2) == 1 else x.contiguous() for x in (key, value))
    if _is_tiled(key_cache, value_cache):
        torch.ops.ascend_cpu.write_kv.default(key, value, key_cache, value_cache, slot_mapping)
        return
    for new, stored in ((key, key_cache), (value, value_cache)):
        torch.ops.ascend_cpu.write_rows.default(new.to(stored.dtype), stored, slot_mapping)


def paged_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    plan: Plan,
    *,
    scale: float,
    sliding_window: int | None,
    out: Tensor,
    sinks: Tensor | None = None,
    logits_soft_cap: float | None = None,
) -> None:
    """See core_backend/ops/cpu."""
    if not _is_tiled(key_cache, value_cache):
        variant: dict[str, Any] = {"sinks": sinks, "logits_soft_cap": logits_soft_cap}
        settings: dict[str, Any] = {"scale": scale, "sliding_window": sliding_window, "out": out, **variant}
        cpu.paged_attention(query, key_cache, value_cache, plan.plain, **settings)
        return
    assert plan.block_table is not None
    query = query if query.stride()[1:] == (query.shape[2], 1) else query.contiguous()
    torch.ops.ascend_cpu.paged_attention.default(
        query,
        key_cache,
        value_cache,
        plan.query_start_loc,
        plan.seq_lens,
        plan.block_table,
        scale,
        sliding_window or 0,
        plan.causal,
        sinks,
        logits_soft_cap or 0.0,
        out,
    )


def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: Plan,
    *,
    scale: float,
    sliding_window: int | None,
    out: Tensor,
) -> None:
    """See core_backend/ops/cpu."""
    if not _has_varlen_kernel(query, key, value, out):
        cpu.varlen_attention(query, key, value, plan.plain, scale=scale, sliding_window=sliding_window, out=out)
        return
    torch.ops.ascend_cpu.varlen_attention.default(
        query, key, value, plan.query_start_loc, scale, sliding_window or 0, plan.causal, out
    )


def _is_tiled(key_cache: Tensor, value_cache: Tensor) -> bool:
    """Whether this cache has the kernel's layout, which must be the same for all that read it and write to it.

    caches  [num_blocks, block_size, num_kv_heads, head_size]
    """
    head_size = key_cache.shape[3]
    return (
        key_cache.dtype == torch.bfloat16
        and value_cache.shape == key_cache.shape
        and key_cache.shape[1] % TILE_TOKENS == 0
        and head_size % TILE_COLUMNS == 0
        and head_size <= MAX_HEAD_SIZE
        and key_cache.stride()[1:] == (key_cache.shape[2] * head_size, head_size, 1)
        and value_cache.stride()[1:] == key_cache.stride()[1:]
    )


def _has_varlen_kernel(*tensors: Tensor) -> bool:
    """tensors  [num_tokens, num_heads, head_size], of one size of head"""
    head_size = tensors[0].shape[2]
    return all(
        x.dtype == torch.bfloat16
        and x.shape[2] == head_size
        and head_size % 2 == 0
        and head_size <= MAX_HEAD_SIZE
        and x.stride()[1:] == (head_size, 1)
        for x in tensors
    )
