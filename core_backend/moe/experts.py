"""The experts that this rank holds: their weights, and what they make of the rows that were sorted for them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.config import get_current_vllm_config
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.config import (
    FUSED_MOE_UNQUANTIZED_CONFIG,
    FusedMoEConfig,
    FusedMoEQuantConfig,
)
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

from core_backend.config import BackendConfig
from core_backend.moe.parallel import ExpertParallel, Placement
from core_backend.ops.table import operators
from core_backend.ops.vocabulary import OperatorSet

ACTIVATIONS = (MoEActivation.SILU, MoEActivation.GELU, MoEActivation.GELU_TANH)


@dataclass(frozen=True, slots=True)
class LocalExperts:
    """Gated feed-forward networks, one an expert.

    gate_up  [num_local, hidden_size, 2 * intermediate_size]; down [num_local, intermediate_size, hidden_size]
    """

    ops: OperatorSet
    gate_up: Tensor
    down: Tensor
    activation: MoEActivation

    def __call__(self, rows: Tensor, counts: Tensor) -> Tensor:
        """rows [num_rows, hidden_size], by expert; counts [num_local] int64; rows past their sum: unspecified."""
        hidden = self._activate(self.ops.grouped_matmul(rows, self.gate_up, counts))
        return self.ops.grouped_matmul(hidden, self.down, counts)

    def _activate(self, x: Tensor) -> Tensor:
        if self.activation == MoEActivation.SILU:
            return self.ops.silu_and_mul(x)
        return self.ops.gelu_and_mul(x, "tanh" if self.activation == MoEActivation.GELU_TANH else "none")


class AscendMoEMethod(UnquantizedFusedMoEMethod):
    """vLLM's method for unquantized experts, on our operators."""

    def __init__(self, moe: FusedMoEConfig) -> None:
        """Raises NotImplementedError for experts that the operators do not have."""
        super().__init__(moe)
        if moe.activation not in ACTIVATIONS or not moe.is_act_and_mul:
            raise NotImplementedError(
                f"experts with the activation {moe.activation.value!r} are not supported: choose a model with one of "
                f"{', '.join(activation.value for activation in ACTIVATIONS)}."
            )
        if moe.has_bias:
            raise NotImplementedError("experts with a bias are not supported yet: choose another model.")
        config = BackendConfig.from_dict(get_current_vllm_config().additional_config or {})
        self.forced = None if config.moe_communication == "auto" else config.moe_communication
        # vLLM asks the "kernel" whether it reduces over ranks by itself, and leaves sending tokens to it.
        self.moe_kernel: Any = None

    @property
    def is_monolithic(self) -> bool:
        """No: the router chooses, this method computes."""
        return False

    @property
    def topk_indices_dtype(self) -> torch.dtype:
        return torch.int32

    @property
    def mk_can_overlap_shared_experts(self) -> bool:
        return False

    def get_fused_moe_quant_config(self, layer: torch.nn.Module) -> FusedMoEQuantConfig:
        return FUSED_MOE_UNQUANTIZED_CONFIG

    def process_weights_after_loading(self, layer: Any) -> None:
        ops = operators()
        for weight in (layer.w13_weight, layer.w2_weight):
            weight.data = ops.pack_expert_weight(weight.data)
        self.moe_kernel = ExpertParallel(ops, self.moe, Placement.of(layer), self.forced)

    def apply(
        self,
        layer: Any,
        x: Tensor,
        topk_weights: Tensor,
        topk_ids: Tensor,
        shared_experts: Any = None,
        shared_experts_input: Tensor | None = None,
    ) -> Tensor:
        """What the experts make of x [num_tokens, hidden_size]; see ExpertParallel for what is left to reduce."""
        experts = LocalExperts(operators(), layer.w13_weight, layer.w2_weight, layer.activation)
        if layer.apply_router_weight_on_input:
            x, topk_weights = x * topk_weights.to(x.dtype), torch.ones_like(topk_weights)
        output: Tensor = self.moe_kernel.run(x, topk_weights, topk_ids, experts)
        return output
