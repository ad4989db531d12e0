"""The worker on an NPU: one device per rank, and a KV cache out of its memory."""

import torch
from vllm.logger import init_logger
from vllm.utils.torch_utils import set_random_seed
from vllm.v1.worker.worker_base import CompilationTimes

from core_backend import upstream_patches
from core_backend.device import npu
from core_backend.worker.npu_memory import GIB, DeviceMemory, kv_cache_bytes
from core_backend.worker.worker import AscendWorker

logger = init_logger("vllm." + __name__)


class NpuWorker(AscendWorker):
    """One rank on one NPU."""

    def _start_device(self) -> torch.device:
        """Raises ValueError if this rank has no device."""
        upstream_patches.apply_to_npu_worker()
        # vLLM lets each data-parallel engine see its own devices only (ASCEND_RT_VISIBLE_DEVICES).
        index = int(self.local_rank)
        if index >= npu.count():
            raise ValueError(
                f"rank {self.rank} needs NPU {index}, but this process sees {npu.count()}: lower tensor_parallel_size "
                "or data_parallel_size, or make more devices visible (ASCEND_RT_VISIBLE_DEVICES)."
            )
        return npu.start(index)

    def _note_free_memory(self) -> None:
        npu.empty_cache()
        self.memory_before = DeviceMemory(*npu.memory())
        if self.cache_config.kv_cache_memory_bytes is None:
            self.memory_before.requested(self.cache_config.gpu_memory_utilization)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def determine_available_memory(self) -> int:
        """Bytes for the KV cache: what the largest step leaves of this engine's share."""
        npu.reset_peak_memory()
        self.model_runner.profile_run()
        npu.synchronize()
        if self.cache_config.kv_cache_memory_bytes is not None:
            return int(self.cache_config.kv_cache_memory_bytes)
        free, total = npu.memory()
        outside_torch = max(0, self.memory_before.free - free - npu.reserved_bytes())
        requested = self.memory_before.requested(self.cache_config.gpu_memory_utilization)
        num_bytes = kv_cache_bytes(requested, npu.peak_allocated_bytes(), outside_torch)
        npu.empty_cache()
        logger.info("KV cache: %.2f GiB of %.2f GiB device memory", num_bytes / GIB, total / GIB)
        return num_bytes

    def compile_or_warm_up_model(self) -> CompilationTimes:
        """One step, so that no request pays for the operators' first use; and the graphs, if asked for."""
        self.model_runner.warm_up()
        if self.config.npu_graphs:
            self._capture_graphs()
        set_random_seed(self.model_config.seed)
        return CompilationTimes(language_model=0.0, encoder=0.0)

    def _capture_graphs(self) -> None:
        """Raises RuntimeError if capture fails where other ranks would wait for this one's collectives."""
        try:
            self.model_runner.capture_model()
        except NotImplementedError:
            raise
        except RuntimeError as error:  # out of streams or memory, or a CANN that cannot capture an operator
            if self.parallel_config.world_size > 1:
                raise RuntimeError(f"capturing decode steps failed: {error}. Leave npu_graphs unset.") from error
            logger.warning("graphs: capture failed, decode steps run eagerly: %s", error)
            self.model_runner.run_eagerly()
