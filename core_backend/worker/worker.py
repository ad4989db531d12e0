"""The worker: one process's device, model runner, and memory."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from vllm.config import CacheConfig
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.utils.torch_utils import set_random_seed
from vllm.v1.worker.gpu_worker import Worker, init_worker_distributed_environment
from vllm.v1.worker.worker_base import CompilationTimes
from vllm.v1.worker.workspace import init_workspace_manager

from core_backend import upstream_patches
from core_backend.config import BackendConfig
from core_backend.device import choose_device, num_threads
from core_backend.layers import register_layers
from core_backend.worker import memory
from core_backend.worker.allocator import keep_freed_memory_mapped
from core_backend.worker.model_runner import AscendModelRunner

# A name under "vllm": that is the logger vLLM gives a handler to.
logger = init_logger("vllm." + __name__)


class AscendWorker(Worker):
    """vLLM's worker on our devices."""

    def init_device(self) -> None:
        upstream_patches.apply_to_worker()
        register_layers()
        config = BackendConfig.from_dict(self.vllm_config.additional_config or {})
        device = choose_device(config)
        self.device = torch.device(device.type)
        torch.set_num_threads(num_threads(config, self._num_local_ranks()))
        keep_freed_memory_mapped()
        logger.info("device: %s, operator set: %s, %d threads", device, device.op_set, torch.get_num_threads())
        current_platform.check_if_supports_dtype(self.model_config.dtype)
        init_worker_distributed_environment(
            self.vllm_config,
            self.rank,
            self.distributed_init_method,
            self.local_rank,
            current_platform.dist_backend,
        )
        set_random_seed(self.model_config.seed)
        init_workspace_manager(self.device, num_ubatches=1)
        self.model_runner: AscendModelRunner = AscendModelRunner(self.vllm_config, self.device)

    def _num_local_ranks(self) -> int:
        """The processes of this engine that share this machine's cores and memory."""
        return int(self.parallel_config.local_world_size * self.parallel_config.data_parallel_size_local)

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        """Raises ValueError if the weights do not fit into memory."""
        folder, stored = Path(self.model_config.model), getattr(self.model_config.hf_config, "dtype", None)
        if folder.is_dir():
            loaded_itemsize = self.model_config.dtype.itemsize
            stored_itemsize = stored.itemsize if isinstance(stored, torch.dtype) else loaded_itemsize
            needed = memory.weight_bytes(folder, stored_itemsize, loaded_itemsize)
            memory.check_weights_fit(needed // self.parallel_config.world_size, memory.available_bytes())
        super().load_model(load_dummy_weights=load_dummy_weights)

    def determine_available_memory(self) -> int:
        """Bytes for the KV cache. Nothing is run to find out: on the CPU, activations come from what is left free."""
        request_bytes = sum(spec.max_memory_usage_bytes(self.vllm_config) for spec in self.get_kv_cache_spec().values())
        available = memory.available_bytes() // self._num_local_ranks()
        num_bytes = memory.kv_cache_bytes(available, self._requested_kv_cache_bytes(), request_bytes)
        logger.info("KV cache: %.2f GiB", num_bytes / memory.GIB)
        return num_bytes

    def _requested_kv_cache_bytes(self) -> int | None:
        """What the user asked for, in bytes or as a share of the machine's memory; None: nothing.

        vLLM does not tell whether a value was given: its default share counts as none.
        """
        share = self.cache_config.gpu_memory_utilization
        if self.cache_config.kv_cache_memory_bytes is not None or share == CacheConfig.gpu_memory_utilization:
            return self.cache_config.kv_cache_memory_bytes
        total = memory.total_bytes() // self._num_local_ranks()
        return memory.share_for_kv_cache(share, total, memory.process_bytes())

    def compile_or_warm_up_model(self) -> CompilationTimes:
        """Nothing is compiled; the random state is as if nothing had run."""
        set_random_seed(self.model_config.seed)
        return CompilationTimes(language_model=0.0, encoder=0.0)

    def _maybe_get_memory_pool_context(self, tag: str) -> AbstractContextManager[Any]:
        return nullcontext()

    def sleep(self, level: int = 1) -> None:
        raise NotImplementedError("sleep mode moves weights off a device; there is none here. Stop the engine instead.")

    def wake_up(self, tags: list[str] | None = None) -> None:
        raise NotImplementedError("sleep mode moves weights off a device; there is none here. Start the engine again.")
