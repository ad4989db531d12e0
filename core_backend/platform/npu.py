"""The platform on Ascend NPUs."""

import os
from typing import TYPE_CHECKING

import torch
from vllm.logger import init_logger

from core_backend.config import BackendConfig
from core_backend.device import current_device, npu
from core_backend.platform.base import AscendPlatform, run_eagerly
from core_backend.probe.start import check_before_loading
from core_backend.worker.graph_sizes import planned_sizes

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.utils.argparse_utils import FlexibleArgumentParser

logger = init_logger("vllm." + __name__)

# Seconds. A rank that does not take part in a collective is named after ten minutes instead of half an hour.
HCCL_CONNECT_TIMEOUT = 300  # torch_npu recommends at least this; HCCL's own default is 120
HCCL_EXEC_TIMEOUT = 600  # HCCL's own default is 1836
HCCL_EVENT_MARGIN = 60  # who waits for the collective's event gives up after the collective does


class NpuPlatform(AscendPlatform):
    """Ascend NPUs, through torch_npu."""

    device_name = "npu"
    device_type = "npu"
    dispatch_key = "PrivateUse1"
    dist_backend = "hccl"
    ray_device_key = "NPU"
    device_control_env_var = "ASCEND_RT_VISIBLE_DEVICES"
    ray_noset_device_env_vars = ["RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES"]  # noqa: RUF012
    worker_cls = "core_backend.worker.npu.NpuWorker"

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return npu.name()

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        """Raises NotImplementedError: asking would start the device in a process that only serves."""
        raise NotImplementedError

    @classmethod
    def get_current_memory_usage(cls, device: torch.types.Device | None = None) -> float:
        return float(npu.allocated_bytes())

    @classmethod
    def mem_get_info(cls) -> tuple[int, int]:
        """(free, total) bytes, in the order of torch.cuda.mem_get_info."""
        return npu.memory()

    @classmethod
    def set_device(cls, device: torch.device) -> None:
        npu.start(device.index or 0)

    @classmethod
    def manual_seed_all(cls, seed: int) -> None:
        npu.seed_all(seed)

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        return True

    @classmethod
    def opaque_attention_op(cls) -> bool:
        """No: behind one operator of its own, torch_npu's capture would not see the attention that it must update."""
        return False

    @classmethod
    def support_static_graph_mode(cls) -> bool:
        return current_device().hardware.has_graphs

    @classmethod
    def pre_register_and_update(cls, parser: "FlexibleArgumentParser | None" = None) -> None:
        """Raises ValueError if the environment asks for processes to be forked."""
        super().pre_register_and_update(parser)
        method = os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        if method != "spawn":
            raise ValueError(
                f"VLLM_WORKER_MULTIPROC_METHOD={method} does not work with an NPU, which a forked process cannot use: "
                "unset it, or set it to spawn."
            )

    @classmethod
    def _configure(cls, vllm_config: "VllmConfig", config: BackendConfig) -> None:
        if config.check_machine:
            check_before_loading(current_device().hardware, npu.torch_npu_version())
        if config.npu_graphs:
            _check_graphs(vllm_config)
        sizes = list(vllm_config.compilation_config.cudagraph_capture_sizes or [])
        run_eagerly(vllm_config)
        if config.npu_graphs:
            _capture_decode_steps(vllm_config, sizes)
        _set_collective_timeouts()


def _set_collective_timeouts() -> None:
    """Defaults; what the user has set stays."""
    os.environ.setdefault("HCCL_CONNECT_TIMEOUT", str(HCCL_CONNECT_TIMEOUT))
    execution = os.environ.setdefault("HCCL_EXEC_TIMEOUT", str(HCCL_EXEC_TIMEOUT))
    if execution.isdigit():
        os.environ.setdefault("HCCL_EVENT_TIMEOUT", str(int(execution) + HCCL_EVENT_MARGIN))
    # Errors of a collective end the process with the rank and the operator in the message.
    os.environ.setdefault("TORCH_HCCL_ASYNC_ERROR_HANDLING", "1")


def _check_graphs(vllm_config: "VllmConfig") -> None:
    """Raises NotImplementedError on a chip that has no graphs, ValueError where there is nothing to capture."""
    current_device().hardware.check_feature("graphs")
    model = vllm_config.model_config
    if vllm_config.speculative_config is not None:
        raise ValueError("npu_graphs captures steps of one token a request, speculation has several: set one of them.")
    if model.enforce_eager:
        raise ValueError("npu_graphs captures decode steps and enforce_eager forbids it: set one of them.")
    if model.use_mla:
        raise NotImplementedError("decode steps with latent attention cannot be captured yet: leave npu_graphs unset.")
    if model.pooler_config is not None:
        raise ValueError("npu_graphs captures decode steps, which a pooling model does not have: leave it unset.")
    if vllm_config.lora_config is not None:
        raise ValueError("npu_graphs and enable_lora do not work together yet: set one of them.")


def _capture_decode_steps(vllm_config: "VllmConfig", wanted: list[int]) -> None:
    """Steps in which every request has one token become graphs; all others run eagerly."""
    from vllm.config import CUDAGraphMode

    hardware = current_device().hardware
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    sizes = planned_sizes(
        wanted,
        max_num_seqs=vllm_config.scheduler_config.max_num_seqs,
        num_layers=model.get_total_num_hidden_layers(),
        num_parallel_groups=(parallel.tensor_parallel_size > 1) + (parallel.data_parallel_size > 1),
        streams=hardware.streams,
    )
    possible = [size for size in wanted if size <= vllm_config.scheduler_config.max_num_seqs]
    if len(sizes) < len(possible):
        logger.warning("graphs: streams suffice for %d of %d batch sizes: %s", len(sizes), len(possible), sizes)
    model.enforce_eager = False
    compilation = vllm_config.compilation_config
    compilation.cudagraph_mode = CUDAGraphMode.FULL_DECODE_ONLY
    compilation.cudagraph_capture_sizes = sizes
    compilation.max_cudagraph_capture_size = sizes[-1]
