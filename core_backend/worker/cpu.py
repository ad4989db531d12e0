"""The worker on the CPU: threads, and a KV cache out of the machine's memory."""

from pathlib import Path

import torch
from vllm.config import CacheConfig
from vllm.logger import init_logger
from vllm.utils.torch_utils import set_random_seed
from vllm.v1.worker.worker_base import CompilationTimes

from core_backend.device import num_threads
from core_backend.worker import memory
from core_backend.worker.allocator import give_back_freed_memory, keep_freed_memory_mapped
from core_backend.worker.worker import AscendWorker

logger = init_logger("vllm." + __name__)


class CpuWorker(AscendWorker):
    """One rank on this machine's CPU."""

    def _start_device(self) -> torch.device:
        torch.set_num_threads(num_threads(self.config, self.num_local_ranks()))
        keep_freed_memory_mapped()
        return torch.device("cpu")

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        """Raises ValueError if the weights do not fit into memory."""
        folder = Path(self.model_config.model)
        if folder.is_dir():
            packed_bits = getattr(self.vllm_config.quant_config, "packed_bits", 32)
            needed = memory.weight_bytes(folder, self.model_config.dtype.itemsize, packed_bits)
            memory.check_weights_fit(needed // self.parallel_config.world_size, memory.available_bytes())
        super().load_model(load_dummy_weights=load_dummy_weights)
        give_back_freed_memory()

    def determine_available_memory(self) -> int:
        """Bytes for the KV cache. Nothing is run to find out: on the CPU, activations come from what is left free."""
        request_bytes = sum(spec.max_memory_usage_bytes(self.vllm_config) for spec in self.get_kv_cache_spec().values())
        available = memory.available_bytes() // self.num_local_ranks()
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
        total = memory.total_bytes() // self.num_local_ranks()
        return memory.share_for_kv_cache(share, total, memory.process_bytes())

    def compile_or_warm_up_model(self) -> CompilationTimes:
        """Nothing is compiled; the random state is as if nothing had run."""
        set_random_seed(self.model_config.seed)
        return CompilationTimes(language_model=0.0, encoder=0.0)
