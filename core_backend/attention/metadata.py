"""What all layers of one KV cache group need to know about a step."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from vllm.config import CUDAGraphMode, VllmConfig
from vllm.v1.attention.backend import (
    AttentionCGSupport,
    AttentionMetadata,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
)
from vllm.v1.kv_cache_interface import AttentionSpec, EncoderOnlyAttentionSpec

from core_backend.device import current_device
from core_backend.ops.table import operators
from core_backend.ops.vocabulary import OperatorSet


@dataclass(slots=True)
class AscendMetadata(AttentionMetadata):
    """One step of one KV cache group."""

    ops: OperatorSet
    num_actual_tokens: int
    slot_mapping: torch.Tensor  # [num_actual_tokens]: what ops.prepare_slot_mapping returned
    plan: Any  # what ops.plan_attention prepared

    @property
    def decode_plan(self) -> Any:
        """The plan of an operator set with kernels, of a step in which every request has one token; else None."""
        return self.plan if self.plan.is_decode else None


class AscendMetadataBuilder(AttentionMetadataBuilder[AscendMetadata]):
    """Builds a step's metadata once for all layers of a KV cache group."""

    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self.captured_slots = _captured_slots(vllm_config, device)
        # Decodes come first in the batch, so that an operator set can treat them as one slice.
        self._init_reorder_batch_threshold(1, False)
        self.ops = operators()
        self.has_cache = not isinstance(kv_cache_spec, EncoderOnlyAttentionSpec)

    @classmethod
    def get_cudagraph_support(cls, vllm_config: VllmConfig, kv_cache_spec: AttentionSpec) -> AttentionCGSupport:
        """Steps in which every request has one token can be captured, on chips that have graphs."""
        has_graphs = current_device().hardware.has_graphs
        return AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE if has_graphs else AttentionCGSupport.NEVER

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> AscendMetadata:
        return self._build(common_attn_metadata, for_graph=False)

    def build_for_drafting(self, common_attn_metadata: CommonAttentionMetadata, draft_index: int) -> AscendMetadata:
        """For a step of the draft model: of its lengths, vLLM keeps only the device's right."""
        return self._build(common_attn_metadata.replace(_seq_lens_cpu=None), for_graph=False)

    def build_for_cudagraph_capture(self, common_attn_metadata: CommonAttentionMetadata) -> AscendMetadata:
        return self._build(common_attn_metadata, for_graph=True)

    def _build(self, step: CommonAttentionMetadata, *, for_graph: bool) -> AscendMetadata:
        num_reqs = step.num_reqs
        query_start_loc, seq_lens = give_padding_a_token(
            step.query_start_loc_cpu[: num_reqs + 1].tolist(),
            lengths_on_host(step)[:num_reqs].tolist(),
            step.num_actual_tokens,
        )
        plan = self.ops.plan_attention(
            query_start_loc,
            seq_lens,
            step.block_table_tensor[:num_reqs] if self.has_cache else None,
            block_size=self.kv_cache_spec.block_size,
            causal=step.causal,
            for_graph=for_graph,
        )
        num_tokens = query_start_loc[-1]
        return AscendMetadata(
            ops=self.ops,
            num_actual_tokens=num_tokens,
            slot_mapping=self._slots(step.slot_mapping[:num_tokens]),
            plan=plan,
        )

    def _slots(self, slot_mapping: torch.Tensor) -> torch.Tensor:
        """A captured step reads its slots at one address, whatever step it is replayed for."""
        prepared = self.ops.prepare_slot_mapping(slot_mapping)
        if self.captured_slots is None:
            return prepared
        return self.captured_slots[: len(prepared)].copy_(prepared)


def give_padding_a_token(
    query_start_loc: list[int], seq_lens: list[int], num_tokens: int
) -> tuple[list[int], list[int]]:
    """Make the requests that only fill up a captured batch size into requests of one token each.

    query_start_loc  num_reqs + 1 positions; those of padding repeat the last real one
    num_tokens       of the step, padding included
    returns          both lists, in which the requests cover all tokens. Padding sees one slot of the null block.
    """
    missing = num_tokens - query_start_loc[-1]
    empty = sum(begin == end for begin, end in pairwise(query_start_loc))
    if not 0 < missing <= empty:
        return query_start_loc, seq_lens
    first = len(seq_lens) - missing
    covered = [*query_start_loc[: first + 1], *range(query_start_loc[-1] + 1, num_tokens + 1)]
    return covered, [*seq_lens[:first], *[1] * missing]


def _captured_slots(vllm_config: VllmConfig, device: torch.device) -> torch.Tensor | None:
    if vllm_config.compilation_config.cudagraph_mode == CUDAGraphMode.NONE:
        return None
    return torch.zeros(vllm_config.scheduler_config.max_num_batched_tokens, dtype=torch.int32, device=device)


def lengths_on_host(step: CommonAttentionMetadata) -> torch.Tensor:
    """The sequence lengths, from the copy that the runner keeps: reading the device's would wait for it.

    There is no copy while the host does not know how many speculated tokens the device accepted.
    """
    return step.seq_lens if step._seq_lens_cpu is None else step._seq_lens_cpu
