"""Collectives between the ranks of a group, on tensors whose first dimension may differ from rank to rank."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from vllm.distributed.device_communicators.base_device_communicator import DeviceCommunicatorBase


class AscendCommunicator(DeviceCommunicatorBase):
    """torch.distributed on the device's backend: gloo or HCCL."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sent_bytes = 0  # by this rank to others, in the calls below

    def all_reduce(self, input_: Tensor) -> Tensor:
        # A ring sends every part on once to be summed, and once more when it is.
        self.sent_bytes += 2 * (self.world_size - 1) * input_.numel() * input_.element_size() // self.world_size
        return super().all_reduce(input_)

    def all_gatherv(
        self, input_: Tensor | list[Tensor], dim: int = 0, sizes: list[int] | None = None
    ) -> Tensor | list[Tensor]:
        """The rows of all ranks, in their order, of each tensor.

        input_  [sizes[rank], ...]; sizes: None if all are equal
        """
        assert dim == 0
        if isinstance(input_, list):
            return [self._all_gather(tensor, sizes) for tensor in input_]
        return self._all_gather(input_, sizes)

    def reduce_scatterv(self, input_: Tensor, dim: int = 0, sizes: list[int] | None = None) -> Tensor:
        """This rank's rows of the sum over all ranks.

        input_   [sum(sizes), ...]; sizes: None if all are equal
        returns  [sizes[rank], ...]
        """
        assert dim == 0
        sizes = sizes or [input_.shape[0] // self.world_size] * self.world_size
        own = sizes[self.rank_in_group]
        if not any(sizes):
            return input_[:0]
        blocks = _padded(input_.split(sizes), max(sizes))
        summed = torch.empty_like(blocks[0])
        dist.reduce_scatter_tensor(summed, torch.cat(blocks), group=self.device_group)
        self._count(blocks[0], self.world_size - 1)
        return summed[:own]

    def all_to_allv(self, input_: Tensor, sent: list[int], received: list[int]) -> Tensor:
        """Rows to each rank, and those that it has for us.

        input_    [>= sum(sent), ...]: the rows for rank 0, those for rank 1, ...
        sent      rows for each rank; received: rows from each rank
        returns   [sum(received), ...], in the order of the ranks
        """
        output = input_.new_empty(sum(received), *input_.shape[1:])
        dist.all_to_all_single(output, input_[: sum(sent)].contiguous(), received, sent, group=self.device_group)
        self._count(input_[:1], sum(sent) - sent[self.rank_in_group])
        return output

    def all_to_all_counts(self, counts: Sequence[Tensor]) -> Tensor:
        """One number for each expert of each rank.

        counts   for each rank, [its number of experts] int64
        returns  [world_size, this rank's number of experts]: what each rank has for ours
        """
        own = len(counts[self.rank_in_group])
        received = self.all_to_allv(torch.cat(list(counts)), [len(count) for count in counts], [own] * self.world_size)
        return received.view(self.world_size, own)

    def _all_gather(self, tensor: Tensor, sizes: list[int] | None) -> Tensor:
        sizes = sizes or [tensor.shape[0]] * self.world_size
        longest = max(sizes)
        (padded,) = _padded([tensor], longest)
        gathered = tensor.new_empty(self.world_size * longest, *tensor.shape[1:])
        dist.all_gather_into_tensor(gathered, padded, group=self.device_group)
        self._count(padded, self.world_size - 1)
        return torch.cat([rows[:size] for rows, size in zip(gathered.split(longest), sizes, strict=True)])

    def _count(self, tensor: Tensor, times: int) -> None:
        self.sent_bytes += tensor.numel() * tensor.element_size() * times


def _padded(blocks: Sequence[Tensor], num_rows: int) -> list[Tensor]:
    """Each block with `num_rows` rows: collectives take tensors of one shape."""
    return [
        torch.cat((block, block.new_zeros(num_rows - len(block), *block.shape[1:]))).contiguous() for block in blocks
    ]
