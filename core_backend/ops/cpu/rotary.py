"""Rotary position embedding."""

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


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, head_size: int, is_neox_style: bool) -> Tensor:
    rotary_dim = 2 * cos.shape[-1]
    heads = x.view(x.shape[0], -1, head_size)
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
