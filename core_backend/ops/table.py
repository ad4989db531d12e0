"""From an operator set's name to its operators."""

from functools import cache
from importlib import import_module
from typing import cast

from core_backend.ops.vocabulary import OperatorSet

OPERATOR_SETS = {"cpu": "core_backend.ops.cpu"}


@cache
def operator_set(name: str) -> OperatorSet:
    """The operators of the set `name`.

    Raises ValueError for a name that no operator set has.
    """
    if name not in OPERATOR_SETS:
        raise ValueError(f"operator set {name!r} is unknown: there are {sorted(OPERATOR_SETS)}.")
    return cast(OperatorSet, import_module(OPERATOR_SETS[name]))
