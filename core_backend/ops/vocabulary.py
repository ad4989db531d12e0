"""The operator vocabulary: what the layers and the attention backend may call.

Every operator set is a package with a function for each name below; core_backend/ops/cpu is the
specification, and its docstrings give shapes, units, errors and sources for all sets.
"""

from typing import Any, Literal, Protocol

from torch import Tensor
from torch.distributed import ProcessGroup

from core_backend.ops.cpu.moe import ExpertRows, SentTokens


class OperatorSet(Protocol):
    """One name per operator. A package that holds them all is an operator set."""

    # The paged KV cache

    def prepare_slot_mapping(self, slot_mapping: Tensor) -> Tensor: ...

    def write_kv(
        self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_mapping: Tensor
    ) -> None: ...

    def compute_slot_mapping(
        self, positions: Tensor, query_start_loc: Tensor, block_table: Tensor, block_size: int, slot_mapping: Tensor
    ) -> None: ...

    # Attention. What plan_attention prepares once per step is opaque outside the operator set.

    def plan_attention(
        self,
        query_start_loc: list[int],
        seq_lens: list[int],
        block_table: Tensor | None,
        *,
        block_size: int,
        causal: bool,
        for_graph: bool = False,
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
        sinks: Tensor | None = None,
        logits_soft_cap: float | None = None,
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

    # Latent attention

    def mla_paged_attention(
        self,
        query_latent: Tensor,
        query_pe: Tensor,
        latent_cache: Tensor,
        pe_cache: Tensor,
        plan: Any,
        *,
        scale: float,
        out: Tensor,
    ) -> None: ...

    def mla_varlen_attention(
        self,
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
    ) -> tuple[Tensor, Tensor]: ...

    def merge_attention(self, outs: list[Tensor], lses: list[Tensor]) -> Tensor: ...

    # Norms, rotary embedding, activations

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

    def mrope(
        self,
        positions: Tensor,
        query: Tensor,
        key: Tensor,
        cos_sin_cache: Tensor,
        *,
        head_size: int,
        mrope_section: list[int],
        is_neox_style: bool,
        is_interleaved: bool = False,
    ) -> tuple[Tensor, Tensor]: ...

    def silu_and_mul(self, x: Tensor) -> Tensor: ...

    def gelu_and_mul(self, x: Tensor, approximate: Literal["none", "tanh"]) -> Tensor: ...

    # Linear layers

    def pack_linear_weight(self, weight: Tensor) -> Tensor: ...

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor: ...

    def logits(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor: ...

    def pack_quantized_weight(self, weight: Tensor) -> Tensor: ...

    def quantize_per_token(self, x: Tensor) -> tuple[Tensor, Tensor]: ...

    def quantized_linear(self, x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor: ...

    # Mixture of experts

    def route_topk(
        self,
        router_logits: Tensor,
        top_k: int,
        *,
        scoring: Literal["softmax", "sigmoid"],
        renormalize: bool,
        bias: Tensor | None = None,
        num_expert_groups: int = 1,
        top_k_groups: int = 1,
        scaling_factor: float = 1.0,
    ) -> tuple[Tensor, Tensor]: ...

    def route_to_experts(
        self, x: Tensor, topk_ids: Tensor, *, num_experts: int, first: int, num_local: int
    ) -> ExpertRows: ...

    def pack_expert_weight(self, weight: Tensor) -> Tensor: ...

    def grouped_matmul(self, x: Tensor, weight: Tensor, counts: Tensor) -> Tensor: ...

    def combine_experts(self, rows: Tensor, row_of: Tensor, counts: Tensor, topk_weights: Tensor) -> Tensor: ...

    def dispatch_to_ranks(
        self, x: Tensor, topk_ids: Tensor, topk_weights: Tensor | None, *, group: ProcessGroup, num_experts: int
    ) -> SentTokens: ...

    def combine_from_ranks(self, rows: Tensor, topk_ids: Tensor, topk_weights: Tensor, sent: SentTokens) -> Tensor: ...

    # Sampling

    def argmax(self, logits: Tensor) -> Tensor: ...

    def apply_top_k_top_p(self, logits: Tensor, k: Tensor | None, p: Tensor | None) -> Tensor: ...
