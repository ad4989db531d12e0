"""What all layers of one KV cache group need to know about a step."""

from dataclasses import dataclass
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.v1.attention.backend import AttentionMetadata, AttentionMetadataBuilder, CommonAttentionMetadata
from vllm.v1.kv_cache_interface import AttentionSpec, EncoderOnlyAttentionSpec

from core_backend.ops.table import operators
from core_backend.ops.vocabulary import OperatorSet


@dataclass(slots=True)
class AscendMetadata(AttentionMetadata):
    """One step of one KV cache group."""

    ops: OperatorSet
    num_actual_tokens: int
    slot_mapping: torch.Tensor  # [num_actual_tokens]: what ops.prepare_slot_mapping returned
    plan: Any  # what ops.plan_attention prepared


class AscendMetadataBuilder(AttentionMetadataBuilder[AscendMetadata]):
    """Builds a step's metadata once for all layers of a KV cache group."""

    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        # Decodes come first in the batch, so that an operator set can treat them as one slice.
        self._init_reorder_batch_threshold(1, False)
        self.ops = operators()
        self.has_cache = not isinstance(kv_cache_spec, EncoderOnlyAttentionSpec)

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> AscendMetadata:
        step = common_attn_metadata
        num_reqs = step.num_reqs
        plan = self.ops.plan_attention(
            step.query_start_loc_cpu[: num_reqs + 1].tolist(),
            _on_host(step)[:num_reqs].tolist(),
            step.block_table_tensor[:num_reqs] if self.has_cache else None,
            block_size=self.kv_cache_spec.block_size,
            causal=step.causal,
        )
        return AscendMetadata(
            ops=self.ops,
            num_actual_tokens=step.num_actual_tokens,
            slot_mapping=self.ops.prepare_slot_mapping(step.slot_mapping[: step.num_actual_tokens]),
            plan=plan,
        )


def _on_host(step: CommonAttentionMetadata) -> torch.Tensor:
    """The sequence lengths, from the copy that the runner keeps: reading the device's would wait for it.

    There is no copy while the host does not know how many speculated tokens the device accepted.
    """
    return step.seq_lens if step._seq_lens_cpu is None else step._seq_lens_cpu
