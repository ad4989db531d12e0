"""The documented rules of the device's operators: how a broken one is reported, and those that many operators share."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Family = Literal["910B", "910_93", "310P"]
A2_A3: tuple[Family, ...] = ("910B", "910_93")
ALL: tuple[Family, ...] = ("910B", "910_93", "310P")


class RuleBrokenError(RuntimeError):
    """An operator was called as the device's documents do not allow, or do not define."""


@dataclass(slots=True)
class SimulatedChip:
    """The chip whose rules hold; set once by the registry."""

    family: Family = "910B"
    takes_float32: bool = False


CHIP = SimulatedChip()


def family_of(chip: str) -> Family:
    """The family of a chip that the simulator knows: 910B3 -> 910B."""
    if chip.startswith("310P"):
        return "310P"
    return "910_93" if chip.startswith("910_93") else "910B"


def rule(holds: bool, text: str, source: str, **found: Any) -> None:
    """Raises RuleBrokenError with the rule, its source and what was found, unless the rule holds."""
    if not holds:
        seen = ", ".join(f"{name}={value}" for name, value in found.items())
        raise RuleBrokenError(f"{text} (source: {source}); found {seen}")


def half_precision(source: str, **tensors: Tensor | None) -> None:
    """fp16 or bf16, all the same; no bf16 on 310P. fp32 passes under the test switch only."""
    given = {name: tensor.dtype for name, tensor in tensors.items() if tensor is not None}
    allowed = {torch.float16} if CHIP.family == "310P" else {torch.float16, torch.bfloat16}
    names = " or ".join(sorted(str(dtype).removeprefix("torch.") for dtype in allowed))
    if CHIP.takes_float32:
        allowed.add(torch.float32)
    rule(set(given.values()) <= allowed, f"{', '.join(given)} must be {names} on {CHIP.family}", source, **given)
    rule(len(set(given.values())) <= 1, f"{', '.join(given)} must have one dtype", source, **given)


def floating(source: str, **tensors: Tensor | None) -> None:
    """fp32, fp16 or bf16; no bf16 on 310P."""
    allowed = {torch.float32, torch.float16} | ({torch.bfloat16} if CHIP.family != "310P" else set())
    given = {name: tensor.dtype for name, tensor in tensors.items() if tensor is not None}
    names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in allowed))
    rule(set(given.values()) <= allowed, f"{', '.join(given)} must be one of {names} on {CHIP.family}", source, **given)


def int32(source: str, **tensors: Tensor) -> None:
    """Indices and lengths are int32: the device would read int64 as pairs."""
    given = {name: tensor.dtype for name, tensor in tensors.items()}
    rule(set(given.values()) == {torch.int32}, f"{', '.join(given)} must be int32", source, **given)


def contiguous(source: str, **tensors: Tensor) -> None:
    """Dense in memory."""
    broken = {name: tensor.stride() for name, tensor in tensors.items() if not tensor.is_contiguous()}
    rule(not broken, f"{', '.join(tensors)} must be contiguous", source, **broken)


def not_supported(source: str, **given: Any) -> None:
    """Arguments that the document rules out, or that this emulation does not have."""
    used = {name: value for name, value in given.items() if value is not None and value is not False and value != ""}
    shown = {name: type(value).__name__ if isinstance(value, (Tensor, list)) else value for name, value in used.items()}
    rule(not used, f"{', '.join(used)}: not supported here", source, **shown)


def undefined(*shape: int, dtype: torch.dtype) -> Tensor:
    """What the device leaves unwritten: NaN, or for integers the smallest one, so that reading it shows."""
    if dtype.is_floating_point:
        return torch.full(shape, float("nan"), dtype=dtype)
    return torch.full(shape, torch.iinfo(dtype).min, dtype=dtype)
