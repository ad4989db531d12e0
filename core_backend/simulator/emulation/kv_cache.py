"""Writing keys and values to the paged cache: _npu_reshape_and_cache."""

from torch import Tensor

from core_backend.simulator.emulation.layout import NZ_COLUMNS
from core_backend.simulator.emulation.registry import emulates
from core_backend.simulator.emulation.rules import ALL, CHIP, contiguous, half_precision, int32, rule

RESHAPE_AND_CACHE = "CANN ATB docs, ReshapeAndCacheOperation"
ROWS_OF_16 = 16


@emulates(
    "atb::_npu_reshape_and_cache",
    source=RESHAPE_AND_CACHE,
    families=ALL,
    in_nz={"310P": ("key_cache", "value_cache")},
)
def reshape_and_cache(key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_indices: Tensor) -> None:
    """Slot slot_indices[t] = block * block_size + offset receives token t; -1 is skipped."""
    half_precision(RESHAPE_AND_CACHE, key=key, value=value, key_cache=key_cache, value_cache=value_cache)
    int32(RESHAPE_AND_CACHE, slot_indices=slot_indices)
    contiguous(RESHAPE_AND_CACHE, key_cache=key_cache, value_cache=value_cache)
    rule(
        key.dim() == 3 and slot_indices.dim() == 1 and len(slot_indices) == len(key) == len(value),
        "key and value are [num_tokens, num_heads, head_size], slot_indices [num_tokens]",
        RESHAPE_AND_CACHE,
        key=tuple(key.shape),
        value=tuple(value.shape),
        slot_indices=tuple(slot_indices.shape),
    )
    write = _write_nz if CHIP.family == "310P" else _write_nd
    write(key, key_cache, slot_indices)
    write(value, value_cache, slot_indices)


def _write_nd(new: Tensor, cache: Tensor, slots: Tensor) -> None:
    rule(
        cache.dim() == 4 and cache.shape[2:] == new.shape[1:],
        "an ND cache is [num_blocks, block_size, num_heads, head_size]",
        RESHAPE_AND_CACHE,
        cache=tuple(cache.shape),
        new=tuple(new.shape),
    )
    blocks, offsets, is_real = _positions(slots, cache.shape[0], cache.shape[1])
    cache[blocks, offsets] = new[is_real]


def _write_nz(new: Tensor, cache: Tensor, slots: Tensor) -> None:
    num_features = new.shape[1] * new.shape[2]
    rule(
        cache.dim() == 4 and cache.shape[1] * NZ_COLUMNS == num_features and cache.shape[3] == NZ_COLUMNS,
        "on 310P a cache is NZ: [num_blocks, num_heads * head_size / 16, block_size, 16]",
        RESHAPE_AND_CACHE,
        cache=tuple(cache.shape),
        new=tuple(new.shape),
    )
    rule(
        cache.shape[2] % ROWS_OF_16 == 0,
        "an NZ cache has a block size that is a multiple of 16",
        RESHAPE_AND_CACHE,
        block_size=cache.shape[2],
    )
    blocks, offsets, is_real = _positions(slots, cache.shape[0], cache.shape[2])
    cache[blocks, :, offsets] = new[is_real].reshape(-1, cache.shape[1], NZ_COLUMNS)


def _positions(slots: Tensor, num_blocks: int, block_size: int) -> tuple[Tensor, Tensor, Tensor]:
    is_real = slots >= 0
    real = slots[is_real].long()
    rule(
        not len(real) or int(real.max()) < num_blocks * block_size,
        "slots lie inside the cache",
        RESHAPE_AND_CACHE,
        largest=int(real.max()) if len(real) else None,
        num_slots=num_blocks * block_size,
    )
    rule(len(real.unique()) == len(real), "no slot is written twice", RESHAPE_AND_CACHE, slots=real.tolist()[:8])
    return real // block_size, real % block_size, is_real
