"""vLLM's routers, with the choice of experts made by our operator."""

from typing import Any, Literal

import torch
from vllm.model_executor.layers.fused_moe.config import RoutingMethodType
from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter
from vllm.model_executor.layers.fused_moe.router.fused_topk_bias_router import FusedTopKBiasRouter
from vllm.model_executor.layers.fused_moe.router.fused_topk_router import FusedTopKRouter
from vllm.model_executor.layers.fused_moe.router.grouped_topk_router import GroupedTopKRouter

from core_backend.ops.table import operators

KNUTH = 2654435769  # floor(2^32 / golden ratio): neighbouring tokens go to different replicas


class AscendRouter(BaseRouter):
    """Top-k routing of every kind that the operator has, in place of vLLM's router."""

    def __init__(self, theirs: FusedTopKRouter | FusedTopKBiasRouter | GroupedTopKRouter) -> None:
        """Raises NotImplementedError for a way to score experts that the operator does not have."""
        super().__init__(theirs.top_k, theirs.global_num_experts, theirs.eplb_state, theirs.indices_type_getter)
        self._method: RoutingMethodType = theirs.routing_method_type
        self.scoring = _scoring(theirs)
        self.renormalize = bool(theirs.renormalize)
        # A buffer of the gate, which is filled when the weights are loaded: kept, not copied.
        self.bias: torch.Tensor | None = getattr(theirs, "e_score_correction_bias", None)
        self.scaling_factor = float(getattr(theirs, "routed_scaling_factor", 1.0))
        self.num_expert_groups = int(getattr(theirs, "num_expert_group", None) or 1)
        self.top_k_groups = int(getattr(theirs, "topk_group", None) or 1)

    @property
    def routing_method_type(self) -> RoutingMethodType:
        return self._method

    def _compute_routing(
        self,
        hidden_states: torch.Tensor,
        router_logits: torch.Tensor,
        indices_type: torch.dtype | None,
        *,
        input_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        is_grouped = router_logits.shape[1] > self.num_expert_groups > 1
        return operators().route_topk(
            router_logits,
            self.top_k,
            scoring=self.scoring,
            renormalize=self.renormalize,
            bias=self.bias,
            num_expert_groups=self.num_expert_groups if is_grouped else 1,
            top_k_groups=self.top_k_groups if is_grouped else 1,
            scaling_factor=self.scaling_factor,
        )

    def _apply_eplb_mapping(self, topk_ids: torch.Tensor) -> torch.Tensor:
        state = self.eplb_state
        if state is None:
            return topk_ids
        assert state.logical_to_physical_map is not None
        assert state.logical_replica_count is not None
        physical = replica_of_each(topk_ids, state.logical_to_physical_map, state.logical_replica_count)
        assert state.expert_load_view is not None
        assert state.should_record_tensor is not None
        load = state.should_record_tensor.to(state.expert_load_view.dtype).expand(physical.numel())
        state.expert_load_view.scatter_add_(0, physical.flatten().long(), load)
        return physical


def replica_of_each(topk_ids: torch.Tensor, replicas: torch.Tensor, num_replicas: torch.Tensor) -> torch.Tensor:
    """The physical expert that serves each choice of a logical one; tokens are spread over an expert's replicas.

    topk_ids      [num_tokens, top_k] integer: logical experts
    replicas      [num_logical_experts, max_replicas] int64: physical experts, padded with -1
    num_replicas  [num_logical_experts] int64, at least 1
    returns       [num_tokens, top_k], the dtype of topk_ids
    Source: vllm/model_executor/layers/fused_moe/router/base_router.py (0.23.0), a Triton kernel there.
    """
    logical = topk_ids.long()
    tokens = torch.arange(topk_ids.shape[0], device=topk_ids.device).unsqueeze(1)
    replica = (tokens * KNUTH & 0xFFFFFFFF) % num_replicas[logical]
    return replicas[logical, replica].to(topk_ids.dtype)


def our_router(theirs: Any) -> Any:
    """The router to use in place of vLLM's: ours where an operator has its rule, else its own, which is plain torch."""
    if type(theirs) in (FusedTopKRouter, FusedTopKBiasRouter, GroupedTopKRouter):
        return AscendRouter(theirs)
    if theirs.eplb_state is not None:
        raise NotImplementedError(
            f"load balancing of experts is not supported with {type(theirs).__name__}: leave enable_eplb unset."
        )
    return theirs


def _scoring(theirs: Any) -> Literal["softmax", "sigmoid"]:
    if theirs.scoring_func in ("softmax", "sigmoid") and getattr(theirs, "_hash_indices_table", None) is None:
        return theirs.scoring_func
    raise NotImplementedError(
        f"experts scored by {theirs.scoring_func!r} are not supported: choose a model whose router uses softmax or "
        "sigmoid."
    )
