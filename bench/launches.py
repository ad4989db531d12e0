"""`make launches`: which device operators a decode step launches, and how many bytes it moves.

Counted on the simulated NPU, in this process: names and sizes are those of the real chip, times are not.
"""

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

# Before torch is imported, which starts the simulated device.
os.environ.setdefault("ASCEND_SIMULATE", "910B3")
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from core_backend.device import current_device
from core_backend.simulator.routing import launches

MODEL = "smollm2-135m-instruct"
NUM_REQS = 8
PROMPT_TOKENS = 64
MIB = 1 << 20


@dataclass
class DecodeStep:
    """What one step launched: in all, in its first decoder layer, and the bytes moved."""

    where: str = ""  # platform and devices, for a person
    step: list[str] = field(default_factory=list)
    layer: list[str] = field(default_factory=list)
    num_bytes: int = 0


class Traffic(TorchDispatchMode):
    """Adds up the bytes that operators read and write: each tensor once, of tables only what is looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not func.is_view:
            self.num_bytes += _bytes_of(func.__name__.split(".")[0], args, kwargs, out)
        return out


def _bytes_of(name: str, args: Any, kwargs: Any, out: Any) -> int:
    if name == "empty":
        return 0
    if name == "npu_fused_infer_attention_score":
        row = args[1].shape[-1] * args[1].element_size()
        return 2 * row * sum(kwargs["actual_seq_lengths_kv"]) + 2 * _size([args[0]])
    if name == "_npu_reshape_and_cache":
        return 2 * _size([kwargs["key"], kwargs["value"]] if kwargs else args[:2])
    if name == "embedding":
        return 2 * _size([out])
    if name == "npu_mrope":
        rows = args[0].numel() * args[3].shape[1] * args[3].element_size()
        return 2 * _size([args[1], args[2]]) + rows
    return _size([*tree_leaves((args, kwargs)), *tree_leaves(out)])


def _size(tensors: Iterable[Any]) -> int:
    unique = {t.data_ptr(): t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor)}
    return sum(unique.values())


def measure() -> tuple[DecodeStep, int]:
    """One decode step of several requests, and the bytes of the weights."""
    from vllm import LLM, SamplingParams

    hardware = current_device().hardware
    llm = LLM(
        str(pull(CATALOGUE[MODEL], Progress(MODEL))),
        dtype=hardware.dtypes[0],
        max_model_len=512,
        max_num_seqs=NUM_REQS,
        max_num_batched_tokens=NUM_REQS * PROMPT_TOKENS,
        kv_cache_memory_bytes=64 * MIB,
        async_scheduling=False,
        disable_log_stats=True,
    )
    engine = llm.llm_engine
    for i in range(NUM_REQS):
        prompt = {"prompt_token_ids": list(range(100 + i, 100 + i + PROMPT_TOKENS))}
        engine.add_request(str(i), prompt, SamplingParams(temperature=0, max_tokens=8, ignore_eos=True))
    model = engine.model_executor.driver_worker.model_runner.model
    engine.step()  # the prompts
    engine.step()  # one decode step to warm up
    step = DecodeStep()
    _listen_to(model.model.layers[0], step)
    engine.step()
    traffic = Traffic()
    with launches() as launched:
        with traffic:
            engine.step()
    step.step, step.num_bytes = launched, traffic.num_bytes
    step.where = _where(model, engine.model_executor.driver_worker.model_runner.kv_caches)
    weights = sum({p.data_ptr(): p.numel() * p.element_size() for p in _weights(model)}.values())
    return step, weights


def _where(model: torch.nn.Module, kv_caches: list[Any]) -> str:
    from vllm.platforms import current_platform

    devices = {str(tensor.device) for tensor in [*_weights(model), *tree_leaves(kv_caches)]}
    return f"platform {current_platform.device_type}, weights and KV cache on {', '.join(sorted(devices))}"


def _weights(model: torch.nn.Module) -> Iterable[torch.Tensor]:
    yield from model.parameters()
    # A packed linear layer holds its weight under another name.
    yield from (module.packed_weight for module in model.modules() if hasattr(module, "packed_weight"))


def _listen_to(layer: torch.nn.Module, step: DecodeStep) -> None:
    """Fill step.layer with what the layer launches when it runs next."""
    listening: list[tuple[AbstractContextManager[list[str]], list[str]]] = []

    def begin(module: Any, args: Any) -> None:
        context = launches()
        listening.append((context, context.__enter__()))

    def end(module: Any, args: Any, output: Any) -> None:
        context, names = listening.pop()
        context.__exit__(None, None, None)
        step.layer = names
        for handle in handles:
            handle.remove()

    handles = [layer.register_forward_pre_hook(begin), layer.register_forward_hook(end)]


def main() -> None:
    """Prints the table."""
    step, weights = measure()
    print(f"{current_device()}: {step.where}, {MODEL}")
    print(f"one decoder layer of one decode step ({len(step.layer)} launches):")
    for i, name in enumerate(step.layer, 1):
        print(f"  {i:>2}  {name}")
    print(f"\none decode step of {NUM_REQS} requests ({len(step.step)} launches):")
    for name, count in Counter(step.step).most_common():
        print(f"  {count:>4}  {name}")
    print(
        f"\nbytes moved: {step.num_bytes / MIB:.1f} MiB, {step.num_bytes / weights:.2f} times the weights' "
        f"{weights / MIB:.1f} MiB"
    )


if __name__ == "__main__":
    main()
