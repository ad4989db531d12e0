"""ACL graphs of decode steps: captured once per batch size, replayed with the lengths of each step.

Attention's lengths are host-side arguments: torch_npu notes the attention calls of a capture, and gives them new
lengths before each replay. Nothing here has been verified on hardware.
"""

from dataclasses import dataclass
from typing import Any

from vllm.compilation.cuda_graph import CUDAGraphWrapper
from vllm.compilation.monitor import validate_cudagraph_capturing_enabled
from vllm.forward_context import BatchDescriptor, get_forward_context, is_forward_context_available
from vllm.logger import init_logger

from core_backend.device import npu

logger = init_logger("vllm." + __name__)


@dataclass(slots=True)
class CapturedStep:
    """One batch size."""

    graph: Any
    output: Any  # what the model returned; its tensors are filled by each replay


class AclGraphWrapper(CUDAGraphWrapper):
    """The model, replayed as a graph where vLLM asks for one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps: dict[BatchDescriptor, CapturedStep] = {}
        self.is_given_up = False

    def give_up(self) -> None:
        """Run eagerly from now on."""
        self.is_given_up = True
        self.clear_graphs()

    def clear_graphs(self) -> None:
        self.steps.clear()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_given_up or not is_forward_context_available():
            return self.runnable(*args, **kwargs)
        context = get_forward_context()
        if context.cudagraph_runtime_mode != self.runtime_mode:
            return self.runnable(*args, **kwargs)
        size = context.batch_descriptor
        assert size is not None
        if size not in self.steps:
            self.steps[size] = self._capture(args, kwargs)
            return self.steps[size].output
        return self._replay(self.steps[size], context.attn_metadata)

    def _capture(self, args: Any, kwargs: Any) -> CapturedStep:
        validate_cudagraph_capturing_enabled()
        graph = npu.new_graph()
        with npu.capture(graph, self.graph_pool):
            output = self.runnable(*args, **kwargs)
        return CapturedStep(graph, output)

    def _replay(self, step: CapturedStep, attn_metadata: Any) -> Any:
        # All layers see the same requests. The former replay must be done: it may still read the lengths.
        plan = next(iter(attn_metadata.values())).plan
        npu.wait_for_stream()
        step.graph.update(cpu_update_input=[plan.lengths()])
        step.graph.replay()
        return step.output
