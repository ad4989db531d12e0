"""What all layers of latent attention need to know about a step."""

from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.v1.attention.backend import (
    AttentionCGSupport,
    AttentionMetadata,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
)
from vllm.v1.attention.backends.utils import split_decodes_and_prefills
from vllm.v1.kv_cache_interface import AttentionSpec

from core_backend.attention.metadata import lengths_on_host
from core_backend.ops.table import operators
from core_backend.ops.vocabulary import OperatorSet

# Context tokens whose keys and values are unfolded at a time: with 128 heads of 128, 0.5 GiB in bf16.
MAX_UNFOLDED_TOKENS = 8192


@dataclass(slots=True)
class ContextChunk:
    """A stretch of the context of each prefilling request."""

    slots: torch.Tensor  # [num_tokens] int64: where in the cache they are
    start_loc: list[int]  # num_prefills + 1: where each request's begin


@dataclass(slots=True)
class MLAPrefill:
    """The requests of a step that have more than one token."""

    query_start_loc: list[int]
    context: list[ContextChunk] = field(default_factory=list)


@dataclass(slots=True)
class AscendMLAMetadata(AttentionMetadata):
    """One step. Requests that decode come first."""

    ops: OperatorSet
    num_actual_tokens: int
    num_decodes: int
    num_prefills: int
    num_decode_tokens: int
    decode: Any  # what ops.plan_attention prepared for them; None: nobody decodes
    prefill: MLAPrefill | None
    slot_mapping: torch.Tensor  # [num_actual_tokens]

    @property
    def decode_plan(self) -> Any:
        """As AscendMetadata's."""
        return self.decode if self.prefill is None else None


class AscendMLAMetadataBuilder(AttentionMetadataBuilder[AscendMLAMetadata]):
    """Builds a step's metadata once for all layers."""

    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self._init_reorder_batch_threshold(1, False)
        self.ops = operators()

    @classmethod
    def get_cudagraph_support(cls, vllm_config: VllmConfig, kv_cache_spec: AttentionSpec) -> AttentionCGSupport:
        return AttentionCGSupport.NEVER

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> AscendMLAMetadata:
        step = common_attn_metadata
        num_decodes, num_prefills, num_decode_tokens, _ = split_decodes_and_prefills(step)
        query_start_loc = step.query_start_loc_cpu[: step.num_reqs + 1].tolist()
        seq_lens = lengths_on_host(step)[: step.num_reqs].tolist()
        decode = self.ops.plan_attention(
            query_start_loc[: num_decodes + 1],
            seq_lens[:num_decodes],
            step.block_table_tensor[:num_decodes],
            block_size=self.kv_cache_spec.block_size,
            causal=True,
        )
        prefill = self._prefill(
            [start - num_decode_tokens for start in query_start_loc[num_decodes:]],
            seq_lens[num_decodes:],
            step.block_table_tensor[num_decodes : step.num_reqs],
        )
        return AscendMLAMetadata(
            ops=self.ops,
            num_actual_tokens=query_start_loc[-1],
            num_decodes=num_decodes,
            num_prefills=num_prefills,
            num_decode_tokens=num_decode_tokens,
            decode=decode if num_decodes else None,
            prefill=prefill if num_prefills else None,
            slot_mapping=step.slot_mapping[: query_start_loc[-1]],
        )

    def _prefill(self, query_start_loc: list[int], seq_lens: list[int], block_table: torch.Tensor) -> MLAPrefill:
        query_lens = [end - start for start, end in pairwise(query_start_loc)]
        context_lens = [seq_len - length for seq_len, length in zip(seq_lens, query_lens, strict=True)]
        chunks = [
            ContextChunk(
                slots_of(stretch, block_table, self.kv_cache_spec.block_size),
                [0, *accumulate(len(positions) for positions in stretch)],
            )
            for stretch in context_stretches(context_lens, MAX_UNFOLDED_TOKENS)
        ]
        return MLAPrefill(query_start_loc, chunks)


def context_stretches(context_lens: list[int], max_tokens: int) -> list[list[range]]:
    """Positions of each request's context, a list of them for every pass over at most `max_tokens` of all requests."""
    with_context = sum(length > 0 for length in context_lens)
    if not with_context:
        return []
    share = max(1, max_tokens // with_context)
    longest = max(context_lens)
    return [
        [range(min(begin, length), min(begin + share, length)) for length in context_lens]
        for begin in range(0, longest, share)
    ]


def slots_of(stretch: list[range], block_table: torch.Tensor, block_size: int) -> torch.Tensor:
    """[num_tokens] int64: the cache slots of the given positions of each request, one request after the other.

    block_table  [num_reqs, max_num_blocks] int32
    """
    lengths = torch.tensor([len(positions) for positions in stretch])
    request = torch.repeat_interleave(torch.arange(len(stretch)), lengths).to(block_table.device)
    position = torch.cat([torch.arange(positions.start, positions.stop) for positions in stretch])
    position = position.to(block_table.device)
    return block_table[request, position // block_size].long() * block_size + position % block_size
