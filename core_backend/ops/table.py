"""From an operator set's name to its operators."""

from functools import cache
from importlib import import_module
from typing import cast

from vllm.logger import init_logger

from core_backend.config import BackendConfig
from core_backend.cpu_kernels import build
from core_backend.device import current_device
from core_backend.ops.vocabulary import OperatorSet

logger = init_logger("vllm." + __name__)

OPERATOR_SETS = {
    "cpu": "core_backend.ops.cpu",
    "cpu_avx512": "core_backend.ops.cpu_avx512",
    "cpu_amx": "core_backend.ops.cpu_avx512",  # the same kernels, whose products are computed on AMX's tiles
    "npu": "core_backend.ops.npu",
    "npu_310p": "core_backend.ops.npu.atlas_300i_duo",
}


@cache
def operator_set(name: str) -> OperatorSet:
    """The operators of the set `name`.

    Raises ValueError for a name that no operator set has.
    """
    if name not in OPERATOR_SETS:
        raise ValueError(f"operator set {name!r} is unknown: there are {sorted(OPERATOR_SETS)}.")
    return cast(OperatorSet, import_module(OPERATOR_SETS[name]))


@cache
def operators() -> OperatorSet:
    """The operators of the device this process runs on."""
    return operator_set(operator_set_name())


@cache
def operator_set_name() -> str:
    """The device's operator set; of a CPU, the one with kernels for it if there is one.

    Raises RuntimeError if kernels are asked for that this machine cannot run.
    """
    name = current_device().op_set
    return _of_this_cpu(BackendConfig.from_environment()) if name == "cpu" else name


def _of_this_cpu(config: BackendConfig) -> str:
    if config.cpu_kernels == "torch":
        return "cpu"
    reason = build.why_unavailable()
    if reason is None:
        if not build.is_built():
            logger.info("building the CPU kernels, once: about 20 s")
        try:
            build.load()
        except RuntimeError as error:
            reason = str(error)
    if reason is None:
        has_amx = build.allow_amx(config.cpu_kernels != "avx512")
        if has_amx or config.cpu_kernels != "amx":
            return "cpu_amx" if has_amx else "cpu_avx512"
        reason = "this CPU, or its system, has no AMX for bfloat16"
    if config.cpu_kernels != "auto":
        raise RuntimeError(
            f"cpu_kernels={config.cpu_kernels} was asked for, but {reason}. Unset ASCEND_CPU_KERNELS to do without."
        )
    logger.info("no CPU kernels of our own: %s", reason)
    return "cpu"
