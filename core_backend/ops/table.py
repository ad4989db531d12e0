"""From an operator set's name to its operators."""

from functools import cache
from importlib import import_module
from typing import cast

from core_backend.device import current_device
from core_backend.ops.vocabulary import OperatorSet

OPERATOR_SETS = {
    "cpu": "core_backend.ops.cpu",
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
    return operator_set(current_device().op_set)
