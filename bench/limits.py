"""The least time that a model's matrix products and the reading of its weights take on this machine."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import safe_open

from bench.workloads import Batch, Metric, Stream

EMBEDDINGS = "model.embed_tokens.weight"  # the output layer too, where there is no other


@dataclass(frozen=True)
class Machine:
    """What was measured."""

    bytes_per_second: float
    flops_per_second: float


@dataclass(frozen=True)
class Model:
    """A dense model in bfloat16 whose output layer is as large as its embeddings."""

    num_layer_weights: int
    num_output_weights: int

    @classmethod
    def of(cls, folder: Path) -> "Model":
        sizes = {}
        for file in folder.glob("*.safetensors"):
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (it is no dict)
                    sizes[name] = prod(tensors.get_slice(name).get_shape())
        output = sizes[EMBEDDINGS]
        layers = sum(size for name, size in sizes.items() if name not in (EMBEDDINGS, "lm_head.weight"))
        return cls(layers, output)

    @property
    def num_bytes(self) -> int:
        """Read for every step."""
        return 2 * (self.num_layer_weights + self.num_output_weights)

    def prompt_seconds(self, machine: Machine, num_requests: int, num_tokens: int) -> float:
        """Reading prompts: the output layer is only needed for their last tokens. Attention is not counted."""
        flops = 2 * num_requests * (num_tokens * self.num_layer_weights + self.num_output_weights)
        return max(flops / machine.flops_per_second, self.num_bytes / machine.bytes_per_second)

    def step_seconds(self, machine: Machine, num_requests: int) -> float:
        """One more token for each request."""
        flops = 2 * num_requests * (self.num_layer_weights + self.num_output_weights)
        return max(flops / machine.flops_per_second, self.num_bytes / machine.bytes_per_second)


def limit(workload: Batch | Stream, model: Model, machine: Machine) -> dict[Metric, float]:
    """What no engine passes that reads every weight once a step, in each metric's unit."""
    if isinstance(workload, Stream):
        first = model.prompt_seconds(machine, 1, workload.prompt_len)
        return {workload.decode: 1 / model.step_seconds(machine, 1), workload.first: 1000 * first}
    seconds = model.prompt_seconds(machine, workload.num_requests, workload.prompt_len)
    seconds += (workload.output_len - 1) * model.step_seconds(machine, workload.num_requests)
    tokens = workload.prompt_len if workload.counts_prompts else workload.output_len
    return {workload.metric: workload.num_requests * tokens / seconds}
