"""The paged KV cache: where each token's key and value are stored."""

import torch
from torch import Tensor

PAD_SLOT_ID = -1


def prepare_slot_mapping(slot_mapping: Tensor) -> Tensor:
    """The slots as write_kv takes them; done once per step for all layers.

    slot_mapping  [num_tokens] int64: block_id * block_size + offset; -1 is padding
    Source: vllm/v1/attention/backend.py, CommonAttentionMetadata.
    """
    return slot_mapping


def write_kv(key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_mapping: Tensor) -> None:
    """Store this step's keys and values in the paged cache, in place.

    key, value              [num_tokens, num_kv_heads, head_size]; their head sizes may differ (latent attention)
    key_cache, value_cache  [num_blocks, block_size, num_kv_heads, head_size]
    slot_mapping            what prepare_slot_mapping returned; padding is not stored
    Raises RuntimeError (from torch) if a cache is not contiguous.
    """
    is_real = slot_mapping != PAD_SLOT_ID
    if not is_real.all():
        key, value, slot_mapping = key[is_real], value[is_real], slot_mapping[is_real]
    for cache, new in ((key_cache, key), (value_cache, value)):
        # view, not flatten: flatten may copy a strided cache, and the write would be lost.
        cache.view(-1, *cache.shape[2:]).index_copy_(0, slot_mapping, new.to(cache.dtype))


def compute_slot_mapping(
    positions: Tensor, query_start_loc: Tensor, block_table: Tensor, block_size: int, slot_mapping: Tensor
) -> None:
    """The cache slot of every token of the step, written to `slot_mapping` in place.

    positions        [num_tokens] int64, in the order of the requests; exactly those of the step
    query_start_loc  [num_reqs + 1] int32: the first token of each request
    block_table      [>= num_reqs, max_num_blocks] int32
    slot_mapping     [>= num_tokens] int64; elements past the last request's tokens become -1
    Source: vllm/v1/worker/block_table.py, _compute_slot_mapping_kernel.
    """
    num_tokens = positions.shape[0]
    req_ids = torch.repeat_interleave(query_start_loc.diff(), output_size=num_tokens)
    block_ids = block_table[req_ids, positions // block_size]
    slot_mapping[:num_tokens] = block_ids * block_size + positions % block_size
    slot_mapping[num_tokens:] = PAD_SLOT_ID
