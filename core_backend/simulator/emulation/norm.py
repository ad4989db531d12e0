"""npu_rms_norm, npu_add_rms_norm."""

import torch
from torch import Tensor

from core_backend.simulator.emulation.registry import emulates
from core_backend.simulator.emulation.rules import ALL, CHIP, floating, rule, undefined

RMS_NORM = "op-plugin docs, torch_npu-npu_rms_norm"
ADD_RMS_NORM = "op-plugin docs, torch_npu-npu_add_rms_norm"
MIN_BYTES_310P = 32


@emulates("npu::npu_rms_norm", source=RMS_NORM, families=ALL)
def npu_rms_norm(input: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """x / sqrt(mean(x^2) + epsilon) * gamma over gamma's dimensions; the mean in fp32."""
    floating(RMS_NORM, input=input, gamma=gamma)
    rule(
        gamma.dtype == input.dtype or (gamma.dtype == torch.float32 and CHIP.family != "310P"),
        "gamma has the dtype of x, or float32 (not on 310P)",
        RMS_NORM,
        x=input.dtype,
        gamma=gamma.dtype,
    )
    _check_shapes(input, gamma, RMS_NORM)
    return _normalize(input, gamma, epsilon)


@emulates("npu::npu_add_rms_norm", source=ADD_RMS_NORM, families=ALL)
def npu_add_rms_norm(x1: Tensor, x2: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    """(rms_norm(x1 + x2), rstd, x1 + x2)."""
    floating(ADD_RMS_NORM, x1=x1, x2=x2, gamma=gamma)
    rule(
        x1.shape == x2.shape and x1.dtype == x2.dtype == gamma.dtype,
        "x1 and x2 have one shape, and one dtype with gamma",
        ADD_RMS_NORM,
        x1=(tuple(x1.shape), x1.dtype),
        x2=(tuple(x2.shape), x2.dtype),
        gamma=gamma.dtype,
    )
    _check_shapes(x1, gamma, ADD_RMS_NORM)
    total = x1 + x2
    normalized, rstd = _normalize(total, gamma, epsilon)
    if CHIP.family == "310P":
        rstd = undefined(*rstd.shape, dtype=rstd.dtype)
    return normalized, rstd, total


def _check_shapes(x: Tensor, gamma: Tensor, source: str) -> None:
    rule(
        gamma.dim() > 0 and x.shape[-gamma.dim() :] == gamma.shape,
        "gamma has the shape of x's last dimensions",
        source,
        x=tuple(x.shape),
        gamma=tuple(gamma.shape),
    )
    if CHIP.family == "310P":
        rule(
            x.shape[-1] * x.element_size() >= MIN_BYTES_310P,
            f"on 310P the last dimension has at least {MIN_BYTES_310P} bytes",
            source,
            x=tuple(x.shape),
        )


def _normalize(x: Tensor, gamma: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    dims = tuple(range(-gamma.dim(), 0))
    rstd = torch.rsqrt(x.float().pow(2).mean(dims, keepdim=True) + epsilon)
    return (x.float() * rstd * gamma.float()).to(x.dtype), rstd
