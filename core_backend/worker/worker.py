"""The worker: one process's device, model runner, and memory. What differs by device is in cpu.py and npu.py."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.utils.torch_utils import set_random_seed
from vllm.v1.worker.gpu_worker import Worker, init_worker_distributed_environment
from vllm.v1.worker.workspace import init_workspace_manager

from core_backend import engine_process, upstream_patches
from core_backend.config import BackendConfig
from core_backend.device import current_device
from core_backend.layers import register_layers
from core_backend.ops.table import operator_set_name
from core_backend.quantization.register import register_quantization
from core_backend.worker.model_runner import AscendModelRunner

# A name under "vllm": that is the logger vLLM gives a handler to.
logger = init_logger("vllm." + __name__)


class AscendWorker(Worker):
    """vLLM's worker on our devices."""

    def init_device(self) -> None:
        engine_process.prepare()
        upstream_patches.apply_to_worker()
        register_layers()
        register_quantization()
        self.config = BackendConfig.from_dict(self.vllm_config.additional_config or {})
        self.device = self._start_device()
        device = current_device()
        logger.info("device: %s, operator set: %s, %d threads", device, operator_set_name(), torch.get_num_threads())
        if device.hardware.is_experimental:
            logger.warning("%s (%s) is experimental", device.hardware.name, device.hardware.products)
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
        self._note_free_memory()
        self.model_runner: AscendModelRunner = AscendModelRunner(self.vllm_config, self.device)

    def _start_device(self) -> torch.device:
        """Make the device ready, and this process's own."""
        raise NotImplementedError

    def _note_free_memory(self) -> None:
        """What is free before the model, where that is needed later."""

    def num_local_ranks(self) -> int:
        """The processes of this engine that share this machine's cores and memory."""
        return int(self.parallel_config.local_world_size * self.parallel_config.data_parallel_size_local)

    def _maybe_get_memory_pool_context(self, tag: str) -> AbstractContextManager[Any]:
        return nullcontext()

    def sleep(self, level: int = 1) -> None:
        raise NotImplementedError("sleep mode is not supported: stop the engine instead.")

    def wake_up(self, tags: list[str] | None = None) -> None:
        raise NotImplementedError("sleep mode is not supported: start the engine again.")
