"""The three tiers of the suite, and what belongs to them (CONTRIBUTING.md has the table).

make test       whatever is marked neither `claim` nor `slow`
make test-all   that, and `claim`: everything that a document claims
make test-slow  `slow`: what takes too long for every run of CI
"""

from collections.abc import Iterable
from typing import Any

import pytest

TIERS = {"test": (), "claim": ("claim",), "slow": ("slow",)}  # tier -> the mark of its tests


def belongs_to(item: pytest.Item, tier: str) -> bool:
    """Whether a test is of this tier. What is marked both `claim` and `slow` is slow."""
    marks = [mark for mark in ("slow", "claim") if item.get_closest_marker(mark)]
    return marks[:1] == list(TIERS[tier])


def some(names: Iterable[str], *first: str, tier: Any = pytest.mark.claim) -> list[Any]:
    """Parameters: `first` for every run, the others for the tier that is given."""
    names = list(names)
    assert set(first) <= set(names), f"{set(first) - set(names)}: no such names"
    return [name if name in first else pytest.param(name, marks=tier) for name in names]


def names_to_test(request: pytest.FixtureRequest, parameter: str) -> list[str]:
    """The values of a parameter that the tests of this module have which are run, in order."""
    module = request.node.getparent(pytest.Module)
    items = [item for item in request.session.items if item.getparent(pytest.Module) is module]
    values = [item.callspec.params.get(parameter) for item in items if hasattr(item, "callspec")]
    return list(dict.fromkeys(value for value in values if value is not None))
