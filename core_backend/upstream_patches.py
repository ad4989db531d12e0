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
from core_backend.sentence_transformers_files import as_vllm_reads


def apply_to_worker() -> None:
    """What the process that runs the model needs."""
    slot_mapping_without_triton()
    sampling_with_our_operator()
    rejection_without_triton()
    drafting_without_triton()
    caches_of_a_draft_model()
    accelerator_without_device()
    prefix_cache_by_adapter()
    cuda_streams_without_device()
    latent_prefill_is_ours()
    files_of_newer_sentence_transformers()
    positions_of_roberta()
    layer_norms_of_bert()
    windows_and_angles_of_modern_bert()


def apply_to_npu_worker() -> None:
    """What the process needs besides that if it runs the model on an NPU."""
    npu_for_cuda()
    npu_memory_for_accelerator()


def apply_to_configuration() -> None:
    """What the process needs that reads the command line and builds the configuration."""
    load_balancing_on_our_devices()
    files_of_newer_sentence_transformers()
    positions_of_roberta()
    prompts_before_texts()


def apply_to_server() -> None:
    """What the server's process needs besides that, where there is no device."""
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


def files_of_newer_sentence_transformers() -> None:
    """Read modules.json and the pooling module's file as sentence-transformers 5.4 and later write them.

    Why: vLLM compares class paths with those of older releases, and otherwise pools and normalizes by defaults of its
    own without a word: the embeddings are wrong.
    Upstream: vllm/transformers_utils/config.py (0.23.0), get_pooling_config and try_get_dense_modules.
    Remove when: vLLM reads both.
    """
    from vllm.transformers_utils import config

    _replace(config, "get_hf_file_to_dict", _file_as_vllm_reads)


def _file_as_vllm_reads(file_name: str, *args: Any, **kwargs: Any) -> Any:
    from vllm.transformers_utils.repo_utils import get_hf_file_to_dict

    return as_vllm_reads(file_name, get_hf_file_to_dict(file_name, *args, **kwargs))


def positions_of_roberta() -> None:
    """Let configurations of RoBERTa and XLM-R say that their positions are absolute, unless they say otherwise.

    Why: transformers 5 has dropped the attribute. vLLM needs it to load XLM-R, and to know that the first positions
    are not for tokens: without it a text of 513 tokens would end the engine.
    Upstream: vllm/config/model.py, get_and_verify_max_len, and vllm/model_executor/models/config.py,
    JinaRobertaModelConfig (0.23.0).
    Remove when: vLLM reads it with a default in both places.
    """
    from transformers import RobertaConfig, XLMRobertaConfig

    for config_class in (RobertaConfig, XLMRobertaConfig):
        config_class.position_embedding_type = "absolute"


def prompts_before_texts() -> None:
    """Put the prompt that a request's input_type names right before its texts, whether there is a chat template or not.

    Why: sentence-transformers does so. vLLM makes the prompt a system message where the tokenizer has a chat template,
    as Qwen3-Embedding's has from the language model that it was; the embeddings are others then.
    Upstream: vllm/entrypoints/pooling/embed/io_processor.py (0.23.0), EmbedIOProcessor._pre_process_cohere_online.
    Remove when: vLLM does.
    """
    from vllm.entrypoints.pooling.embed.io_processor import EmbedIOProcessor

    _replace(EmbedIOProcessor, "_has_chat_template", _has_none)


def _has_none(processor: Any) -> bool:
    return False


def layer_norms_of_bert() -> None:
    """Load LayerNorm.gamma and .beta as .weight and .bias.

    Why: transformers 5 saves models of the BERT kind under these oldest names (and reads both); vLLM knows the newer
    ones only.
    Upstream: vllm/model_executor/models/bert.py and roberta.py (0.23.0); transformers/conversion_mapping.py, "legacy".
    Remove when: vLLM's models map them.
    """
    from vllm.model_executor.model_loader import default_loader

    _replace(default_loader, "safetensors_weights_iterator", _weights_by_newer_names)


def _weights_by_newer_names(*args: Any, **kwargs: Any) -> Iterator[tuple[str, torch.Tensor]]:
    from vllm.model_executor.model_loader.weight_utils import safetensors_weights_iterator

    for name, weight in safetensors_weights_iterator(*args, **kwargs):
        yield name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"), weight


def windows_and_angles_of_modern_bert() -> None:
    """Let a token of ModernBERT's local layers see local_attention / 2 others on each side, and turn by exact angles.

    Why: vLLM takes that number for a window that includes the token itself, and leaves out the farthest on each side;
    and it rounds sines and cosines to float16, whatever the model's dtype.
    Upstream: vllm/model_executor/models/modernbert.py (0.23.0), ModernBertAttention; transformers adds 1.
    Remove when: vLLM does, and gives get_rope no dtype.
    """
    from vllm.model_executor.layers.attention import EncoderOnlyAttention
    from vllm.model_executor.layers.rotary_embedding import get_rope
    from vllm.model_executor.models import modernbert

    def with_whole_window(*args: Any, per_layer_sliding_window: int | None = None, **kwargs: Any) -> Any:
        window = None if per_layer_sliding_window is None else per_layer_sliding_window + 1
        return EncoderOnlyAttention(*args, per_layer_sliding_window=window, **kwargs)

    def with_exact_angles(*args: Any, **kwargs: Any) -> Any:
        return get_rope(*args, **{**kwargs, "dtype": torch.float32})

    _replace(modernbert, "EncoderOnlyAttention", with_whole_window)
    _replace(modernbert, "get_rope", with_exact_angles)


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


def prefix_cache_by_adapter() -> None:
    """Tell prefixes in the cache apart by their adapter's id, not by its name alone.

    Why: a name may be unloaded and given to another adapter, whose requests would find the former one's keys
    and values. The id is new with each load.
    Upstream: vllm/v1/core/kv_cache_utils.py (0.23.0), _gen_lora_extra_hash_keys.
    Remove when: the id is part of the key.
    """
    from vllm.v1.core import kv_cache_utils

    _replace(kv_cache_utils, "_gen_lora_extra_hash_keys", _adapter_of)


def _adapter_of(request: Any) -> list[str]:
    lora = request.lora_request
    return [lora.lora_name, str(lora.lora_int_id)] if lora else []


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


def cuda_streams_without_device() -> None:
    """Let torch.cuda's events and streams do nothing where there is no accelerator.

    Why: on every platform, the runner copies draft tokens to the host on a stream of its own, and balancing the load
    of experts times itself with events; torch raises without CUDA.
    Upstream: vllm/v1/worker/gpu_model_runner.py, __init__ and _copy_draft_token_ids_to_cpu;
    vllm/distributed/eplb/eplb_state.py and eplb_communicator.py (0.23.0). vLLM's own CPU runner overrides four methods.
    Remove when: they go through the platform, or torch.accelerator.
    """
    if torch.accelerator.is_available():
        return
    _replace(torch.cuda, "Event", _NoEvent)
    for name in ("Stream", "current_stream", "stream"):
        _replace(torch.cuda, name, _NoStream)


def load_balancing_on_our_devices() -> None:
    """Let enable_eplb pass.

    Why: ParallelConfig takes it on CUDA and ROCm only, by the platform's kind. What it needs of a device (a router
    that maps logical to physical experts, and moving weights over gloo) works on ours.
    Upstream: vllm/config/parallel.py (0.23.0), the only place there that asks is_cuda_alike.
    Remove when: the platform is asked whether it can balance.
    """
    from vllm.config import parallel

    platform = getattr(parallel, "current_platform", None)
    if not isinstance(platform, _BalancingPlatform):
        _replace(parallel, "current_platform", _BalancingPlatform(platform))


class _BalancingPlatform:
    """A platform that says yes to what ParallelConfig asks before it lets experts be balanced."""

    def __init__(self, platform: Any) -> None:
        self._platform = platform

    def __getattr__(self, name: str) -> Any:
        return getattr(self._platform, name)

    def is_cuda_alike(self) -> bool:
        return True


def latent_prefill_is_ours() -> None:
    """Let MLAAttention choose no kernel for prefills: our implementation of latent attention computes them.

    Why: without a CUDA device it takes FlashAttention, whatever the attention backend is, and asserts that it is
    installed.
    Upstream: vllm/model_executor/layers/attention/mla_attention.py (0.23.0), MLAAttention.__init__.
    Remove when: the attention backend is asked.
    """
    from vllm.model_executor.layers.attention import mla_attention

    _replace(mla_attention, "get_mla_prefill_backend", _no_prefill_backend)


def _no_prefill_backend(vllm_config: Any) -> Callable[..., None]:
    return _do_nothing


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

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds: nobody measured."""
        return 0.0


class _NoStream:
    """A stream of a device that has none; also the context in which it is the current one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: Any) -> None:
        pass


def _do_nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _replace(module: ModuleType | type, name: str, replacement: object) -> None:
    if not hasattr(module, name):
        raise RuntimeError(
            f"{module.__name__}.{name} has moved: core_backend is written for vLLM 0.23.0, "
            "install that version or update core_backend/upstream_patches.py."
        )
    setattr(module, name, replacement)
