"""Rotary embedding: npu_mrope, and the 310P's _npu_rotary_embedding."""

import torch
from torch import Tensor

from core_backend.simulator.emulation.registry import emulates
from core_backend.simulator.emulation.rules import ALL, contiguous, floating, half_precision, rule

MROPE = "op-plugin docs, torch_npu-npu_mrope"
ROPE = "op-plugin sources, op_plugin/ops/atb/RopeAtb.cpp"
SECTIONS = ([16, 24, 24], [24, 20, 20], [8, 12, 12], [16, 16, 16, 16])


@emulates("npu::npu_mrope", source=MROPE)
def npu_mrope(
    positions: Tensor,
    query: Tensor,
    key: Tensor,
    cos_sin_cache: Tensor,
    head_size: int,
    *,
    mrope_section: list[int] | None = None,
    rotary_mode: str | None = "half",
    cache_mode: str | None = "default",
) -> tuple[Tensor, Tensor]:
    """Rotated copies of query and key; with one position per token, plain rotary embedding."""
    floating(MROPE, query=query, key=key, cos_sin_cache=cos_sin_cache)
    rule(
        query.dtype == key.dtype == cos_sin_cache.dtype,
        "cos_sin_cache has the dtype of query and key",
        MROPE,
        query=query.dtype,
        cos_sin_cache=cos_sin_cache.dtype,
    )
    contiguous(MROPE, positions=positions, cos_sin_cache=cos_sin_cache)
    rotary_dim = cos_sin_cache.shape[1]
    step = 16 if query.dtype == torch.float32 else 32
    rule(
        head_size % step == 0 and rotary_dim % step == 0 and rotary_dim <= head_size,
        f"head_size and the rotary dimension are multiples of {step} for this dtype",
        MROPE,
        head_size=head_size,
        rotary_dim=rotary_dim,
    )
    rule(rotary_mode in ("half", "interleaved"), "rotary_mode is half or interleaved", MROPE, rotary_mode=rotary_mode)
    rule(positions.dtype in (torch.int32, torch.int64), "positions are int32 or int64", MROPE, dtype=positions.dtype)
    rule(
        not positions.numel() or int(positions.max()) < cos_sin_cache.shape[0],
        "positions lie inside cos_sin_cache",
        MROPE,
        largest=int(positions.max()) if positions.numel() else None,
        length=cos_sin_cache.shape[0],
    )
    angles = _angles(positions, cos_sin_cache, mrope_section, cache_mode)
    interleaved = rotary_mode == "interleaved"
    return _rotate(query, angles, head_size, interleaved), _rotate(key, angles, head_size, interleaved)


def _angles(positions: Tensor, table: Tensor, section: list[int] | None, cache_mode: str | None) -> Tensor:
    """[num_tokens, rotary_dim]: cosines, then sines, each frequency from the position it follows."""
    if positions.dim() == 1:
        rule(
            (section is None or not any(section)) and cache_mode == "default",
            "with one position per token, mrope_section is None or zeros and cache_mode default",
            MROPE,
            mrope_section=section,
            cache_mode=cache_mode,
        )
        return table[positions]
    rule(
        section is not None and list(section) in SECTIONS and len(section) == positions.shape[0],
        f"mrope_section is one of {SECTIONS}, with one entry per row of positions",
        MROPE,
        mrope_section=section,
        positions=tuple(positions.shape),
    )
    assert section is not None
    half = table.shape[1] // 2
    rule(sum(section) == half, "mrope_section sums to half of the rotary dimension", MROPE, mrope_section=section)
    rows = table[positions.long()]
    chosen = rows[0].clone()
    begin = section[0]
    for kind in range(1, len(section)):
        if cache_mode == "interleave":
            where = torch.arange(kind, min(3 * section[kind], half), 3)
        else:
            where = torch.arange(begin, begin + section[kind])
            begin += section[kind]
        for columns in (where, where + half):
            chosen[:, columns] = rows[kind][:, columns]
    return chosen


# The binding expands the first table that it is given and keeps it for the life of the process.
_first_table: list[tuple[int, tuple[int, ...]]] = []


@emulates("atb::_npu_rotary_embedding", source=ROPE, families=ALL)
def npu_rotary_embedding(
    positions: Tensor, query: Tensor, key: Tensor, head_size: int, cos_sin_cache: Tensor, is_neox_style: bool
) -> None:
    """query and key rotated in place."""
    half_precision(ROPE, query=query, key=key)
    floating(ROPE, cos_sin_cache=cos_sin_cache)
    contiguous(ROPE, query=query, key=key)
    rule(query.dim() == 2, "query and key are [tokens, heads * head_size] here", ROPE, query=tuple(query.shape))
    rule(
        cos_sin_cache.shape[1] == head_size,
        "partial rotary is not supported: head_size is the width of cos_sin_cache",
        ROPE,
        head_size=head_size,
        width=cos_sin_cache.shape[1],
    )
    table = (cos_sin_cache.data_ptr(), tuple(cos_sin_cache.shape))
    if not _first_table:
        _first_table.append(table)
    rule(
        _first_table[0] == table,
        "a process has one cos_sin_cache: the first is kept, later ones are not read",
        ROPE,
        first=_first_table[0][1],
        this=table[1],
    )
    angles = cos_sin_cache[positions.flatten().long()]
    for x in (query, key):
        x.copy_(_rotate(x, angles, head_size, not is_neox_style))


def _rotate(x: Tensor, angles: Tensor, head_size: int, interleaved: bool) -> Tensor:
    """As complex numbers: pairs are multiplied by exp(i * angle)."""
    rotary_dim = angles.shape[1]
    heads = x.reshape(len(angles), x.shape[-1] // head_size, head_size).float()
    turned, rest = heads[..., :rotary_dim], heads[..., rotary_dim:]
    pairs = turned.unflatten(-1, (-1, 2)) if interleaved else turned.unflatten(-1, (2, -1)).transpose(-1, -2)
    cos, sin = angles.float().chunk(2, dim=-1)
    rotated = torch.complex(pairs[..., 0], pairs[..., 1]) * torch.complex(cos, sin).unsqueeze(1)
    rotated = torch.view_as_real(rotated)
    if not interleaved:
        rotated = rotated.transpose(-1, -2)
    return torch.cat((rotated.flatten(-2), rest), dim=-1).to(x.dtype).reshape(x.shape)
