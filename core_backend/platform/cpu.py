"""The platform on a machine without an NPU."""

import ctypes
import gc
import os
from typing import TYPE_CHECKING

import torch

from core_backend import upstream_patches
from core_backend.config import BackendConfig
from core_backend.device import num_threads, num_usable_cores
from core_backend.platform.base import AscendPlatform, run_eagerly
from core_backend.worker import memory

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.utils.argparse_utils import FlexibleArgumentParser

OMP_PAUSE_SOFT = 1  # omp.h


class CpuPlatform(AscendPlatform):
    """The CPU, with the CPU operator set."""

    device_name = "cpu"
    device_type = "cpu"
    dispatch_key = "CPU"
    dist_backend = "gloo"
    worker_cls = "core_backend.worker.cpu.CpuWorker"

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
    def is_pin_memory_available(cls) -> bool:
        return False

    @classmethod
    def opaque_attention_op(cls) -> bool:
        """No: behind one operator of its own, a recorded step would not see the attention."""
        return False

    @classmethod
    def pre_register_and_update(cls, parser: "FlexibleArgumentParser | None" = None) -> None:
        super().pre_register_and_update(parser)
        if parser is None:  # as above: not `vllm serve`
            return
        _prepare_to_fork()
        upstream_patches.apply_to_server()

    @classmethod
    def _configure(cls, vllm_config: "VllmConfig", config: BackendConfig) -> None:
        run_eagerly(vllm_config)
        # Asynchronous scheduling hides the host's work behind a device; here the host is the device.
        vllm_config.scheduler_config.async_scheduling = False
        # Where it is unset, vLLM's executor for several ranks would set it to 1.
        parallel_config = vllm_config.parallel_config
        num_local_ranks = parallel_config.local_world_size * parallel_config.data_parallel_size_local
        os.environ.setdefault("OMP_NUM_THREADS", str(num_threads(config, num_local_ranks)))


def _prepare_to_fork() -> None:
    """For the engine core, which is forked from the process that this is called in (see core_backend.register)."""
    torch.set_num_threads(1)  # the cores are the engine core's
    os.register_at_fork(before=_before_fork)


def _before_fork() -> None:
    # A collection writes to every object: without this, the child would soon have copied the memory that it shares.
    gc.freeze()
    # A child with its parent's pool of threads, but not the threads, waits for ever. vLLM has pictures processed here
    # before it forks, with as many threads as OMP_NUM_THREADS says. Source: OpenMP 5.0, section 3.2.44.
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    if pause is not None:
        pause(OMP_PAUSE_SOFT)
