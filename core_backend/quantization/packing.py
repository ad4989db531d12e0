"""Integers of 4 or 8 bits packed into int32, and the weights they stand for."""

import torch
from torch import Tensor

# AutoAWQ packs eight columns so: the lowest four bits are column 0, the next column 2, then 4, 6, 1, 3, 5 and 7.
COLUMN_AT_AWQ = (0, 4, 1, 5, 2, 6, 3, 7)


def unpack_int32(packed: Tensor, num_bits: int, dim: int) -> Tensor:
    """The unsigned integers in int32 words, the lowest bits first.

    packed   two dimensions, int32; `dim` is the one that is packed
    returns  int32, `dim` 32 / num_bits times as long
    """
    shifts = torch.arange(0, 32, num_bits, dtype=torch.int32, device=packed.device)
    shape = [1, 1, 1]
    shape[dim + 1] = -1
    values = (packed.unsqueeze(dim + 1) >> shifts.view(shape)) & ((1 << num_bits) - 1)
    return values.flatten(dim, dim + 1)


def unpack_awq(packed: Tensor) -> Tensor:
    """Integers of 4 bits in AutoAWQ's order of columns.

    packed   [rows, columns / 8] int32
    returns  [rows, columns] int32
    """
    columns = unpack_int32(packed, 4, dim=1).unflatten(1, (-1, len(COLUMN_AT_AWQ)))
    return columns[:, :, list(COLUMN_AT_AWQ)].flatten(1)


def groups_of(input_size: int, group_size: int, device: torch.device) -> Tensor:
    """[input_size] int64: the group of each input; -1: all are one group."""
    inputs = torch.arange(input_size, device=device)
    return torch.zeros_like(inputs) if group_size == -1 else inputs // group_size


def dequantize(values: Tensor, scales: Tensor, zeros: Tensor | int, groups: Tensor) -> Tensor:
    """(values - zeros) * scales, each input with those of its group.

    values   [output_size, input_size] integers
    scales   [output_size, num_groups]
    zeros    [output_size, num_groups] integers, or one for all
    groups   [input_size] int64
    returns  [output_size, input_size], the dtype of scales; computed in fp32
    """
    shift = zeros if isinstance(zeros, int) else zeros[:, groups]
    return ((values - shift).float() * scales.float()[:, groups]).to(scales.dtype)
