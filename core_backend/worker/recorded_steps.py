"""Decode steps on the CPU without Python between their operators: noted once per batch size, then made again.

What a captured graph is to a device: see core_backend/cpu_kernels/csrc/recorded_step.cpp. A model that calls operators
of which it is not known that they depend on nothing but their arguments runs as it is, and the log says which.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.forward_context import get_forward_context, is_forward_context_available
from vllm.logger import init_logger

from core_backend.attention.metadata import AscendMetadata
from core_backend.attention.mla_metadata import AscendMLAMetadata

logger = init_logger("vllm." + __name__)

MAX_STEPS = 64  # batch sizes that are kept at a time; each takes what one layer needs, and a list of calls
MAX_TOKENS = 256  # of a step: with more, Python is a small part of it


@dataclass(slots=True)
class RecordedStep:
    """One batch size. Its tensors are read, and `output` is written, at the same addresses by every replay."""

    calls: Any
    inputs: dict[str, Tensor]
    requests: list[Tensor]  # what attention knows of them
    output: Tensor


class RecordedModel:
    """A model whose decode steps are recorded."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.steps: OrderedDict[tuple[Any, ...], RecordedStep] = OrderedDict()
        self.is_recordable = True
        self.has_run = False

    def __call__(self, **inputs: Any) -> Any:
        """As the model's own. What is returned is overwritten by the next step."""
        if not self.has_run:  # what a model makes once and keeps must not be taken for a step's own
            self.has_run = True
            return self.model(**inputs)
        tensors = {name: value for name, value in inputs.items() if value is not None}
        requests = _requests_of_decode_step()
        if not self.is_recordable or requests is None or not all(isinstance(x, Tensor) for x in tensors.values()):
            return self.model(**inputs)
        size = tuple((name, *tensor.shape) for name, tensor in tensors.items())
        if size not in self.steps:
            return self._record(size, inputs, tensors, requests)
        self.steps.move_to_end(size)
        return _replay(self.steps[size], tensors, requests)

    def _record(
        self, size: tuple[Any, ...], inputs: dict[str, Any], tensors: dict[str, Tensor], requests: list[Tensor]
    ) -> Any:
        calls = torch.classes.ascend_cpu.RecordedStep()
        calls.begin()
        try:
            output = self.model(**inputs)
        finally:
            refused = calls.end()
        if refused or not isinstance(output, Tensor):
            logger.info("steps of this model are not recorded: %s", refused or "it returns more than a tensor")
            self.is_recordable = False
            return output
        made = output.clone()
        calls.keep(output)
        self.steps[size] = RecordedStep(calls, tensors, requests, output)
        if len(self.steps) > MAX_STEPS:
            self.steps.popitem(last=False)
        return made


def _replay(step: RecordedStep, inputs: dict[str, Tensor], requests: list[Tensor]) -> Tensor:
    new = [*inputs.values(), *requests]
    for old, value in zip([*step.inputs.values(), *step.requests], new, strict=True):
        if old.data_ptr() != value.data_ptr():
            old.copy_(value)
    step.calls.replay()
    return step.output


def _requests_of_decode_step() -> list[Tensor] | None:
    """What attention's operators read of the step's requests; None unless each of them has one token."""
    if not is_forward_context_available():
        return None
    of_layers = get_forward_context().attn_metadata
    if not isinstance(of_layers, dict) or not of_layers:
        return None
    tensors = []
    for metadata in {id(metadata): metadata for metadata in of_layers.values()}.values():
        if not isinstance(metadata, AscendMetadata | AscendMLAMetadata):
            return None
        plan = metadata.decode_plan
        if plan is None or metadata.num_actual_tokens > MAX_TOKENS:
            return None
        tensors += [metadata.slot_mapping, *plan.tensors()]
    return tensors
