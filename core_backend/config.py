"""The backend's own settings. Whatever vLLM has a setting for stays vLLM's."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

OpSet = Literal["auto", "cpu", "npu"]
CpuKernels = Literal["auto", "torch", "avx512", "amx"]
MoeCommunication = Literal["auto", "all_gather", "all_to_all", "mc2"]
CHOSEN_AT_START = {"op_set": "ASCEND_OP_SET", "cpu_kernels": "ASCEND_CPU_KERNELS"}  # setting -> environment variable


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """Built once per process from the environment and vLLM's --additional-config; the latter wins."""

    op_set: OpSet = "auto"  # "auto": the NPU if torch_npu reports one, else the CPU; from the environment only
    cpu_kernels: CpuKernels = "auto"  # of the CPU operator set; "auto": ours if this CPU has them; from the environment
    num_threads: int | None = None  # compute threads of the CPU operator set; None: every usable core
    npu_graphs: bool = False  # capture decode steps as ACL graphs; not verified on hardware
    check_machine: bool = True  # before loading onto an NPU: versions, CANN's environment, operators
    max_image_pixels: int = 1 << 26  # of a picture that comes with a request: 8192 x 8192, 200 MB once decoded
    max_video_pixels: int = 1 << 29  # of all frames taken from a video together: 64 of 3840 x 2160
    moe_communication: MoeCommunication = "auto"  # how tokens reach experts on other ranks; "auto": by the chip table

    def __post_init__(self) -> None:
        if self.op_set not in get_args(OpSet):
            raise ValueError(
                f"op_set={self.op_set!r} is unknown: set ASCEND_OP_SET to one of {', '.join(get_args(OpSet))}."
            )
        if self.cpu_kernels not in get_args(CpuKernels):
            raise ValueError(
                f"cpu_kernels={self.cpu_kernels!r} is unknown: set ASCEND_CPU_KERNELS to one of "
                f"{', '.join(get_args(CpuKernels))}."
            )
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(
                f"num_threads={self.num_threads} must be at least 1 (OMP_NUM_THREADS, or num_threads in "
                "--additional-config)."
            )
        if self.moe_communication not in get_args(MoeCommunication):
            raise ValueError(
                f"moe_communication={self.moe_communication!r} is unknown: use one of "
                f"{', '.join(get_args(MoeCommunication))} (--additional-config)."
            )
        for name in ("max_image_pixels", "max_video_pixels"):
            limit = getattr(self, name)
            if type(limit) is not int or limit < 1:
                raise ValueError(f"{name}={limit!r} must be a number of at least 1 (--additional-config).")
        for name in ("npu_graphs", "check_machine"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} must be true or false (--additional-config).")

    @classmethod
    def from_environment(cls) -> "BackendConfig":
        """What is known before vLLM reads its command line: enough to choose the device.

        Raises ValueError for a bad value.
        """
        return cls(**_from_environment())

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "BackendConfig":
        """Settings from the environment, overridden by `given`.

        Raises ValueError for an unknown key or a bad value.
        """
        for name, variable in CHOSEN_AT_START.items():
            if name in given:
                raise ValueError(
                    f"{name}={given[name]!r} in --additional-config comes too late, the device is chosen when the "
                    f"process starts: set the environment variable {variable}."
                )
        known = [f.name for f in fields(cls) if f.name not in CHOSEN_AT_START]
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f"unknown settings {unknown} in --additional-config: this backend knows {known}.")
        return cls(**{**_from_environment(), **given})


def _from_environment() -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, variable in CHOSEN_AT_START.items():
        if value := os.environ.get(variable):
            settings[name] = value
    if num_threads := os.environ.get("OMP_NUM_THREADS"):
        if not num_threads.isdigit():
            raise ValueError(
                f"OMP_NUM_THREADS={num_threads!r} is not a number: set it to the number of threads, or unset it."
            )
        settings["num_threads"] = int(num_threads)
    return settings
