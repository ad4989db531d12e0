"""The places where vLLM 0.23 has no hook. Each function says why, where upstream it is, and when it can go.

Applied only in the engine's own processes: by the worker, and where `vllm serve` builds its command line. Each
may run twice, and fails loudly if what it replaces has moved.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from core_backend import triton_launchers
from core_backend.ops.table import operators


def apply_to_worker() -> None:
    """What the process that runs the model needs."""
    slot_mapping_without_triton()
    sampling_with_our_operator()
    rejection_without_triton()
    drafting_without_triton()
    caches_of_a_draft_model()
    accelerator_without_device()
    streams_without_device()


def apply_to_npu_worker() -> None:
    """What the process needs besides that if it runs the model on an NPU."""
    npu_for_cuda()
    npu_memory_for_accelerator()


def apply_to_server() -> None:
    """What the server's process needs."""
    inspect_model_in_process()


def inspect_model_in_process() -> None:
    """Look at the model's class here, not in a Python process of its own.

    Why: that process exists so that CUDA is not initialized before the engine core is forked. On the CPU there
    is nothing to initialize, and importing vLLM a second time makes the first start of a model 9 s longer.
    Upstream: vllm/model_executor/models/registry.py (0.23.0), _LazyRegisteredModel.inspect_model_cls.
    Remove when: the platform is asked whether a process of its own is needed.
    """
    from vllm.model_executor.models import registry

    _replace(registry, "_run_in_subprocess", _run_here)


def _run_here(function: Callable[[], Any]) -> Any:
    return function()


def slot_mapping_without_triton() -> None:
    """Compute the slot mapping with our operator.

    Why: BlockTable.compute_slot_mapping launches a Triton kernel, and Triton has no backend for our devices.
    Upstream: vllm/v1/worker/block_table.py (0.23.0); its own CPU runner replaces the same name.
    Remove when: the block table's class can be chosen by the platform or the runner.
    """
    from vllm.v1.worker import block_table

    _replace(block_table, "_compute_slot_mapping_kernel", triton_launchers.SLOT_MAPPING)


def sampling_with_our_operator() -> None:
    """Choose what may be sampled with our operator.

    Why: the function is not the platform's to choose, and with 8 requests or more it launches a Triton kernel
    wherever Triton finds a GPU.
    Upstream: vllm/v1/sample/ops/topk_topp_sampler.py (0.23.0), apply_top_k_top_p.
    Remove when: the platform is asked.
    """
    from vllm.v1.sample import rejection_sampler
    from vllm.v1.sample.ops import topk_topp_sampler

    for module in (topk_topp_sampler, rejection_sampler):
        _replace(module, "apply_top_k_top_p", operators().apply_top_k_top_p)


def rejection_without_triton() -> None:
    """Accept and replace draft tokens with plain torch.

    Why: the rejection sampler launches Triton kernels, and is not the platform's to choose.
    Upstream: vllm/v1/sample/rejection_sampler.py (0.23.0); vLLM's own CPU runner replaces the same names.
    Remove when: the platform or the runner chooses the rejection sampler's operators.
    """
    from vllm.v1.sample import rejection_sampler

    for name, launcher in triton_launchers.REJECTION.items():
        _replace(rejection_sampler, name, launcher)


def drafting_without_triton() -> None:
    """Prepare the draft model's steps with plain torch.

    Why: the proposer launches Triton kernels, and the runner names its class itself.
    Upstream: vllm/v1/spec_decode/llm_base_proposer.py and utils.py (0.23.0); vLLM's own CPU runner replaces the same
    names.
    Remove when: the platform or the runner chooses the proposer's operators.
    """
    from vllm.v1.spec_decode import llm_base_proposer, utils

    for name, launcher in triton_launchers.DRAFTING.items():
        _replace(llm_base_proposer, name, launcher)
    _replace(utils, "eagle_step_slot_mapping_metadata_kernel", triton_launchers.NEXT_DRAFT)


def caches_of_a_draft_model() -> None:
    """Bind KV caches also where two layers have the same number: one of the model, one of its draft model.

    Why: bind_kv_cache refuses that on platforms it does not know.
    Upstream: vllm/v1/worker/utils.py (0.23.0), bind_kv_cache; for CUDA, XPU and its own CPU platform it does the same.
    Remove when: it does so on every platform.
    """
    from vllm.v1.worker import gpu_model_runner

    _replace(gpu_model_runner, "bind_kv_cache", _bind_kv_cache)


def _bind_kv_cache(
    kv_caches: dict[str, Any],
    forward_context: dict[str, Any],
    runner_kv_caches: list[Any],
    num_attn_module: int = 1,
) -> None:
    from vllm.model_executor.models.utils import extract_layer_index

    in_order = sorted(kv_caches, key=lambda layer: extract_layer_index(layer, num_attn_module))
    runner_kv_caches.extend(kv_caches[layer] for layer in in_order)
    for layer, kv_cache in kv_caches.items():
        forward_context[layer].kv_cache = kv_cache


def accelerator_without_device() -> None:
    """Let torch.accelerator.synchronize and empty_cache do nothing where there is no accelerator.

    Why: the runner calls them on every platform, and torch raises where no accelerator is present.
    Upstream: vllm/v1/worker/gpu_model_runner.py (0.23.0), shutdown and profile_run; vLLM's own CPU runner
    does the same.
    Remove when: these calls go through the platform.
    """
    if torch.accelerator.is_available():
        return
    for name in ("synchronize", "empty_cache"):
        _replace(torch.accelerator, name, _do_nothing)


def streams_without_device() -> None:
    """Let streams of torch.cuda do nothing where there is no accelerator.

    Why: with speculative decoding the runner copies draft tokens to the host on a stream of its own, on every
    platform, and torch raises where it is built without CUDA.
    Upstream: vllm/v1/worker/gpu_model_runner.py (0.23.0), __init__ and _copy_draft_token_ids_to_cpu; vLLM's own CPU
    runner overrides four methods for it.
    Remove when: these calls go through the platform.
    """
    if torch.accelerator.is_available():
        return
    for name in ("Stream", "current_stream", "stream"):
        _replace(torch.cuda, name, _NoStream)


def npu_for_cuda() -> None:
    """Let the names of torch.cuda that the runner uses be torch_npu's.

    Why: streams and events are taken from torch.cuda on every platform.
    Upstream: vllm/v1/worker/gpu_model_runner.py (0.23.0), AsyncGPUModelRunnerOutput and __init__; vLLM's XPU runner
    and vllm-ascend do the same.
    Remove when: they go through the platform, or torch.accelerator.
    """
    from core_backend.device import npu

    for name, stand_in in npu.stand_ins_for_cuda().items():
        _replace(torch.cuda, name, stand_in)


def npu_memory_for_accelerator() -> None:
    """Let torch.accelerator's memory functions be torch_npu's.

    Why: they assert that the allocator is a c10::DeviceAllocator, which torch_npu 2.11's is not.
    Upstream: torch_npu/csrc/core/npu/NPUCachingAllocator.h (2.11.0.post3); called by vLLM's model loader, runner and
    worker (0.23.0).
    Remove when: torch_npu's allocator is one.
    """
    from core_backend.device import npu

    for name, stand_in in npu.stand_ins_for_accelerator().items():
        _replace(torch.accelerator, name, stand_in)


@contextmanager
def graphs_of_ours(wrapper: type) -> Iterator[None]:
    """Let the runner wrap the model in `wrapper` where it would take CUDA's; undone on leaving.

    Why: without torch.compile the runner names CUDAGraphWrapper itself, the platform's get_static_graph_wrapper_cls
    is not asked; and graph_capture makes a CUDA stream, where torch_npu's capture takes one of its own.
    Upstream: vllm/v1/worker/gpu_model_runner.py (0.23.0), load_model and capture_model; vllm-ascend does the same.
    Remove when: load_model asks the platform.
    """
    from vllm.v1.worker import gpu_model_runner

    ours = {"CUDAGraphWrapper": wrapper, "graph_capture": _capture_on_a_stream_of_its_own}
    originals = {name: getattr(gpu_model_runner, name, None) for name in ours}
    for name, replacement in ours.items():
        _replace(gpu_model_runner, name, replacement)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(gpu_model_runner, name, original)


@contextmanager
def _capture_on_a_stream_of_its_own(device: torch.device) -> Iterator[None]:
    yield


@contextmanager
def without_cuda_events() -> Iterator[None]:
    """Let GPUModelRunner.__init__ create its events where there is no accelerator; undone on leaving.

    Why: it creates torch.Event() unconditionally, which raises without an accelerator. The events serve
    copies between device and host, which our runner does not make.
    Upstream: vllm/v1/worker/gpu_model_runner.py (0.23.0), transfer_event; vLLM's own CPU runner does the same.
    Remove when: the runner creates its events through an overridable method.
    """
    if torch.accelerator.is_available():
        yield
        return
    original = torch.Event
    torch.Event = _NoEvent
    try:
        yield
    finally:
        torch.Event = original


class _NoEvent:
    """An event of a device that has none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def record(self, *args: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass


class _NoStream:
    """A stream of a device that has none; also the context in which it is the current one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: Any) -> None:
        pass


def _do_nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _replace(module: ModuleType, name: str, replacement: object) -> None:
    if not hasattr(module, name):
        raise RuntimeError(
            f"{module.__name__}.{name} has moved: core_backend is written for vLLM 0.23.0, "
            "install that version or update core_backend/upstream_patches.py."
        )
    setattr(module, name, replacement)
