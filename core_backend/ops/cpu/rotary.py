"""Rotary position embedding."""

from functools import cache

import torch
from torch import Tensor


def rotary(
    positions: Tensor,
    query: Tensor,
    key: Tensor,
    cos_sin_cache: Tensor,
    *,
    head_size: int,
    is_neox_style: bool,
) -> tuple[Tensor, Tensor]:
    """Rotate the first rotary_dim elements of every head by its token's position.

    positions      [num_tokens] integer
    query          [num_tokens, num_heads * head_size]
    key            [num_tokens, num_kv_heads * head_size]
    cos_sin_cache  [max_position, rotary_dim]: cosines, then sines
    is_neox_style  pairs are (i, i + rotary_dim / 2) if true, else (2 i, 2 i + 1)
    returns        query and key, rotated, in their shapes
    Source: arXiv 2104.09864; vllm/model_executor/layers/rotary_embedding/base.py.
    """
    cos, sin = cos_sin_cache.index_select(0, positions).unsqueeze(1).chunk(2, dim=-1)
    return (
        _rotate(query, cos, sin, head_size, is_neox_style),
        _rotate(key, cos, sin, head_size, is_neox_style),
    )


def mrope(
    positions: Tensor,
    query: Tensor,
    key: Tensor,
    cos_sin_cache: Tensor,
    *,
    head_size: int,
    mrope_section: list[int],
    is_neox_style: bool,
    is_interleaved: bool = False,
) -> tuple[Tensor, Tensor]:
    """Rotary embedding with several positions per token (time, height, width), each for a section of the frequencies.

    positions       [len(mrope_section), num_tokens] integer
    mrope_section   how many frequencies each kind of position has; together rotary_dim / 2
    is_interleaved  frequency 3 i + 1 follows the second and 3 i + 2 the third kind as long as its section lasts, all
                    others the first; if false, the sections follow one another
    others          as in rotary
    Source: arXiv 2409.12191; vllm/model_executor/layers/rotary_embedding/mrope.py.
    """
    tables = cos_sin_cache[positions]  # [num_sections, num_tokens, rotary_dim]
    kinds = _kind_of_frequency(tuple(mrope_section), is_interleaved, positions.device)
    frequencies = torch.arange(len(kinds), device=positions.device)
    cos, sin = (half[kinds, :, frequencies].t().unsqueeze(1) for half in tables.chunk(2, dim=-1))
    return (
        _rotate(query, cos, sin, head_size, is_neox_style),
        _rotate(key, cos, sin, head_size, is_neox_style),
    )


@cache
def _kind_of_frequency(mrope_section: tuple[int, ...], is_interleaved: bool, device: torch.device) -> Tensor:
    """[rotary_dim / 2]: the row of `positions` that each frequency follows."""
    return _on_host(mrope_section, is_interleaved).to(device)


def _on_host(mrope_section: tuple[int, ...], is_interleaved: bool) -> Tensor:
    if not is_interleaved:
        return torch.repeat_interleave(torch.arange(len(mrope_section)), torch.tensor(mrope_section))
    kinds = torch.zeros(sum(mrope_section), dtype=torch.int64)
    for kind in (1, 2):
        kinds[kind : 3 * mrope_section[kind] : 3] = kind
    return kinds


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, head_size: int, is_neox_style: bool) -> Tensor:
    rotary_dim = 2 * cos.shape[-1]
    heads = x.view(x.shape[0], x.shape[1] // head_size, head_size)
    rotated = torch.empty_like(heads)
    rotated[..., rotary_dim:] = heads[..., rotary_dim:]
    first, second = _halves(heads[..., :rotary_dim], is_neox_style)
    first_out, second_out = _halves(rotated[..., :rotary_dim], is_neox_style)
    torch.mul(first, cos, out=first_out).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=second_out).addcmul_(first, sin)
    return rotated.view(x.shape)


def _halves(x: Tensor, is_neox_style: bool) -> tuple[Tensor, Tensor]:
    if is_neox_style:
        half = x.shape[-1] // 2
        return x[..., :half], x[..., half:]
    return x[..., ::2], x[..., 1::2]
