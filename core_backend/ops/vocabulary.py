"""The operator vocabulary: what the layers and the attention backend may call.

Every operator set is a package with a function for each name below; core_backend/ops/cpu is the
specification, and its docstrings give shapes, units, errors and sources for all sets.
"""

from typing import Any, Protocol

from torch import Tensor


class AttentionPlan(Protocol):
    """What an operator set prepares once per step for all layers. Opaque outside the set."""


class OperatorSet(Protocol):
    """One name per operator. A package that holds them all is an operator set."""

    def write_kv(
        self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_mapping: Tensor
    ) -> None: ...

    def compute_slot_mapping(
        self, positions: Tensor, query_start_loc: Tensor, block_table: Tensor, block_size: int, slot_mapping: Tensor
    ) -> None: ...

    def plan_attention(
        self,
        query_start_loc: list[int],
        seq_lens: list[int],
        block_table: Tensor | None,
        *,
        block_size: int,
        causal: bool,
    ) -> Any: ...

    def paged_attention(
        self,
        query: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        plan: Any,
        *,
        scale: float,
        sliding_window: int | None,
        out: Tensor,
    ) -> None: ...

    def varlen_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        plan: Any,
        *,
        scale: float,
        sliding_window: int | None,
        out: Tensor,
    ) -> None: ...

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor: ...

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]: ...

    def rotary(
        self,
        positions: Tensor,
        query: Tensor,
        key: Tensor,
        cos_sin_cache: Tensor,
        *,
        head_size: int,
        is_neox_style: bool,
    ) -> tuple[Tensor, Tensor]: ...

    def silu_and_mul(self, x: Tensor) -> Tensor: ...

    def pack_linear_weight(self, weight: Tensor) -> Tensor: ...

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor: ...
