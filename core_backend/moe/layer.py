"""vLLM's layer of experts, with our router."""

from typing import Any

from vllm.model_executor.layers.fused_moe.layer import FusedMoE
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

from core_backend.moe.experts import AscendMoEMethod
from core_backend.moe.routing import our_router


class AscendFusedMoE(FusedMoE):
    """A layer of experts."""

    router: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.router = self.runner.router = our_router(self.router)


def register_moe_layers() -> None:
    """Let vLLM build its layers of experts with our router and our experts."""
    FusedMoE.register_oot(AscendFusedMoE, name="FusedMoE")
    UnquantizedFusedMoEMethod.register_oot(AscendMoEMethod, name="UnquantizedFusedMoEMethod")
