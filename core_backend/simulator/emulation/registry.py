"""From an emulation to a CPU kernel of the operator's own schema, checked against the wheel's Meta kernel."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from core_backend.simulator.config import SimulatorConfig
from core_backend.simulator.emulation.rules import A2_A3, CHIP, Family, RuleBrokenError, family_of

Emulate = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Emulation:
    """One operator as the documents describe it."""

    operator: str  # namespace::name, or namespace::name.overload
    run: Emulate
    families: tuple[Family, ...]
    source: str  # of where it exists
    on_host: tuple[str, ...]  # arguments that must be CPU tensors
    in_nz: tuple[str, ...]  # arguments whose memory must be in FRACTAL_NZ
    check_meta: bool  # whether results are compared with the wheel's Meta kernel, if there is one


EMULATIONS: dict[str, Emulation] = {}
_libraries: dict[str, torch.library.Library] = {}


def emulates(
    operator: str,
    *,
    source: str,
    families: tuple[Family, ...] = A2_A3,
    on_host: dict[Family, tuple[str, ...]] | None = None,
    in_nz: dict[Family, tuple[str, ...]] | None = None,
    check_meta: bool = True,
) -> Callable[[Emulate], Emulate]:
    """Decorator: the function is what `operator` means. Its parameters are the schema's."""

    def register_emulation(run: Emulate) -> Emulate:
        host_arguments, nz_arguments = ((given or {}).get(CHIP.family, ()) for given in (on_host, in_nz))
        EMULATIONS[operator] = Emulation(operator, run, families, source, host_arguments, nz_arguments, check_meta)
        return run

    return register_emulation


def choose_chip(config: SimulatorConfig) -> None:
    """Whose rules hold; before the emulations are imported."""
    CHIP.family = family_of(config.chip)
    CHIP.takes_float32 = config.takes_float32


def install(set_host_argument: Callable[[str, str], None], set_nz_argument: Callable[[str, str], None]) -> None:
    """Give every emulated operator its CPU kernel.

    set_host_argument  tells the boxed kernel that an operator's argument must be a CPU tensor
    set_nz_argument    the same that its memory must be in FRACTAL_NZ
    """
    for emulation in EMULATIONS.values():
        namespace, name = emulation.operator.split("::")
        library = _libraries.setdefault(namespace, torch.library.Library(namespace, "IMPL"))
        library.impl(name, _kernel(emulation), "CPU")
        for argument in emulation.on_host:
            set_host_argument(emulation.operator, argument)
        for argument in emulation.in_nz:
            set_nz_argument(emulation.operator, argument)


def _kernel(emulation: Emulation) -> Emulate:
    if CHIP.family not in emulation.families:
        return functools.partial(_refuse, emulation)
    has_meta = torch._C._dispatch_has_kernel_for_dispatch_key(emulation.operator, "Meta")
    if not (has_meta and emulation.check_meta):
        return functools.partial(_run, emulation)
    return _checked_against_meta(emulation)


def _refuse(emulation: Emulation, *args: Any, **kwargs: Any) -> Any:
    raise RuleBrokenError(
        f"simulated NPU: {emulation.operator} does not exist on {CHIP.family}, only on "
        f"{', '.join(emulation.families)} (source: {emulation.source})"
    )


def _run(emulation: Emulation, *args: Any, **kwargs: Any) -> Any:
    # A caller's `with torch.device(...)` must not reach the emulation's own tensors.
    with torch._C.DisableTorchFunction():
        try:
            return emulation.run(*args, **kwargs)
        except RuleBrokenError as broken:
            raise RuleBrokenError(f"simulated NPU: {emulation.operator}: {broken}") from None


def _checked_against_meta(emulation: Emulation) -> Emulate:
    """Results must have the shapes and dtypes that the wheel itself computes; compared once per kind of call."""
    namespace, name = emulation.operator.split("::")
    packet = getattr(getattr(torch.ops, namespace), name.split(".")[0])
    operator = getattr(packet, name.split(".")[1] if "." in name else "default")
    seen: set[Any] = set()

    def run(*args: Any, **kwargs: Any) -> Any:
        out = _run(emulation, *args, **kwargs)
        kind = (tuple(map(_kind, args)), tuple((key, _kind(value)) for key, value in kwargs.items()))
        if kind not in seen:
            with torch._C.DisableTorchFunction():
                expected = operator(*tree_map(_on_meta, args), **tree_map(_on_meta, kwargs))
            wanted, got = _signature(expected), _signature(out)
            if wanted != got:
                raise AssertionError(f"the emulation of {emulation.operator} returns {got}, the wheel says {wanted}")
            seen.add(kind)
        return out

    return run


def _kind(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        # Lists of lengths are different in every step; what they are lists of decides nothing here.
        return ("numbers", len(value)) if value and isinstance(value[0], int) else tuple(map(_kind, value))
    return value


def _on_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


def _signature(results: Any) -> list[tuple[tuple[int, ...], torch.dtype]]:
    return [(tuple(leaf.shape), leaf.dtype) for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
