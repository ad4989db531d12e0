"""The rows of a step, sorted by the adapter they belong to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NO_ADAPTER = -1


@dataclass(frozen=True, slots=True)
class AdapterRows:
    """The rows that have an adapter; the others appear nowhere, and so keep their values."""

    index: Tensor  # [num_adapter_rows] int64: where they are in the step, sorted by slot
    counts: Tensor  # [num_slots] int64: how many there are of each slot, in the slots' order

    @classmethod
    def of(cls, slots: Sequence[int], num_slots: int, device: torch.device | str) -> "AdapterRows":
        """slots  of each row of the step; NO_ADAPTER: none."""
        given = torch.tensor(slots, dtype=torch.int64)
        order = given.argsort(stable=True)[int((given == NO_ADAPTER).sum()) :]
        return cls(order.to(device), torch.bincount(given[order], minlength=num_slots).to(device))

    def __len__(self) -> int:
        return len(self.index)
