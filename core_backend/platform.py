"""The vLLM platform: what vLLM asks about the device, and the configuration the device needs."""

import os
from typing import TYPE_CHECKING, Any

import torch
from vllm.platforms.interface import Platform, PlatformEnum
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from core_backend import upstream_patches
from core_backend.config import BackendConfig
from core_backend.device import choose_device, num_threads, num_usable_cores
from core_backend.metrics import publish_device
from core_backend.worker import memory

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.utils.argparse_utils import FlexibleArgumentParser


class AscendPlatform(Platform):
    """Ascend NPUs; on a machine without one, the CPU."""

    # OOT on every device: vLLM's own `is_cpu()` branches would expect its compiled CPU kernels.
    _enum = PlatformEnum.OOT
    device_name = "cpu"
    device_type = "cpu"
    dispatch_key = "CPU"
    dist_backend = "gloo"
    simple_compile_backend = "eager"

    @classmethod
    def import_kernels(cls) -> None:
        """vLLM's compiled kernels are for other devices; ours are the operator sets."""

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return cls.device_name

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        return memory.total_bytes()

    @classmethod
    def get_current_memory_usage(cls, device: torch.types.Device | None = None) -> float:
        return float(memory.process_bytes())

    @classmethod
    def mem_get_info(cls) -> tuple[int, int]:
        """(available, total) bytes, in the order of torch.cuda.mem_get_info."""
        return memory.available_bytes(), memory.total_bytes()

    @classmethod
    def set_device(cls, device: torch.device) -> None:
        """A process has one CPU."""

    @classmethod
    def manual_seed_all(cls, seed: int) -> None:
        torch.manual_seed(seed)

    @classmethod
    def num_compute_units(cls, device_id: int = 0) -> int:
        return num_usable_cores()

    @classmethod
    def check_if_supports_dtype(cls, dtype: torch.dtype) -> None:
        if dtype not in (torch.bfloat16, torch.float16, torch.float32):
            raise ValueError(
                f"dtype {dtype} does not run on {cls.device_name}: use bfloat16, float16 or float32 (--dtype)."
            )

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        return False

    @classmethod
    def opaque_attention_op(cls) -> bool:
        return True

    @classmethod
    def support_hybrid_kv_cache(cls) -> bool:
        return True

    @classmethod
    def get_attn_backend_cls(
        cls, selected_backend: Any, attn_selector_config: Any, num_heads: int | None = None
    ) -> str:
        """Our attention backend, or an error that says what the model's attention needs and it does not have."""
        if selected_backend not in (None, AttentionBackendEnum.CUSTOM):
            raise ValueError(
                f"attention backend {selected_backend.name} is not for this device: leave --attention-backend unset."
            )
        from core_backend.attention.backend import AscendAttentionBackend

        reasons = AscendAttentionBackend.validate_configuration(
            **attn_selector_config._asdict(), device_capability=None
        )
        if reasons:
            raise NotImplementedError(
                f"this model's attention cannot run here: {', '.join(reasons)}. Choose another model, or leave the "
                "setting that asks for it (kv_cache_dtype, block_size) unset."
            )
        return "core_backend.attention.backend.AscendAttentionBackend"

    @classmethod
    def pre_register_and_update(cls, parser: "FlexibleArgumentParser | None" = None) -> None:
        """What must be settled before vLLM builds its configuration."""
        # The second model runner needs Triton, which vLLM looks for by itself: it finds one where a GPU is.
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
        # Without a parser this is not `vllm serve`, but vLLM used as a library in somebody's own process.
        if parser is not None and choose_device(BackendConfig.from_dict({})).type == "cpu":
            upstream_patches.apply_to_server()

    @classmethod
    def check_and_update_config(cls, vllm_config: "VllmConfig") -> None:
        config = BackendConfig.from_dict(vllm_config.additional_config or {})
        publish_device(choose_device(config))
        _use_our_worker(vllm_config)
        _run_eagerly(vllm_config)
        _schedule_synchronously(vllm_config)
        _set_process_defaults(vllm_config, config)


def _use_our_worker(vllm_config: "VllmConfig") -> None:
    parallel_config = vllm_config.parallel_config
    if parallel_config.worker_cls == "auto":
        parallel_config.worker_cls = "core_backend.worker.worker.AscendWorker"
    parallel_config.disable_custom_all_reduce = True
    if vllm_config.model_config is not None:
        vllm_config.model_config.disable_cascade_attn = True


def _run_eagerly(vllm_config: "VllmConfig") -> None:
    """No torch.compile and no graph capture: the CPU operator set has neither yet."""
    from vllm.config import CompilationMode, CUDAGraphMode

    if vllm_config.model_config is not None:
        vllm_config.model_config.enforce_eager = True
    compilation = vllm_config.compilation_config
    compilation.mode = CompilationMode.NONE
    compilation.cudagraph_mode = CUDAGraphMode.NONE
    compilation.cudagraph_capture_sizes = []
    compilation.compile_sizes = []
    compilation.custom_ops = ["all"]


def _schedule_synchronously(vllm_config: "VllmConfig") -> None:
    """Asynchronous scheduling hides the host's work behind a device; here the host is the device."""
    vllm_config.scheduler_config.async_scheduling = False


def _set_process_defaults(vllm_config: "VllmConfig", config: BackendConfig) -> None:
    # Without compiled kernels for it there is no second stream to run shared experts on.
    os.environ["VLLM_DISABLE_SHARED_EXPERTS_STREAM"] = "1"
    # Where it is unset, vLLM's executor for several ranks would set it to 1.
    parallel_config = vllm_config.parallel_config
    num_local_ranks = parallel_config.local_world_size * parallel_config.data_parallel_size_local
    os.environ.setdefault("OMP_NUM_THREADS", str(num_threads(config, num_local_ranks)))
