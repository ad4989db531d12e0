"""What vLLM calls where it launches a Triton kernel: the same calls, made to functions in plain torch.

A launcher takes the kernel's own arguments, in the kernel's order; those that only size a launch are dropped.
Source: vllm/v1/worker/block_table.py, vllm/v1/sample/rejection_sampler.py, vllm/v1/spec_decode/llm_base_proposer.py
and utils.py (0.23.0).
"""

from collections.abc import Callable

import torch

from core_backend import speculation
from core_backend.ops.table import operators


class Launcher:
    """Takes the call `kernel[grid](...)` that vLLM makes, and calls a function instead."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self._function


def _compute_slot_mapping(
    num_tokens: int,
    max_num_tokens: int,
    query_start_loc: torch.Tensor,
    positions: torch.Tensor,
    block_table: torch.Tensor,
    block_table_stride: int,
    block_size: int,
    slot_mapping: torch.Tensor,
    *,
    TOTAL_CP_WORLD_SIZE: int,
    **constants: int,
) -> None:
    if TOTAL_CP_WORLD_SIZE != 1:
        raise NotImplementedError(
            f"context parallelism over {TOTAL_CP_WORLD_SIZE} ranks is not supported: "
            "set the context parallel sizes to 1."
        )
    operators().compute_slot_mapping(positions[:num_tokens], query_start_loc, block_table, block_size, slot_mapping)


def _expand(
    output: torch.Tensor,
    values: torch.Tensor,
    cu_num_tokens: torch.Tensor,
    replace_from: float,
    replace_to: float,
    **constants: int,
) -> None:
    speculation.expand(output, values, cu_num_tokens, replace_from, replace_to)


def _accept_greedy(
    output_token_ids: torch.Tensor,
    cu_num_draft_tokens: torch.Tensor,
    draft_token_ids: torch.Tensor,
    target_argmax: torch.Tensor,
    bonus_token_ids: torch.Tensor,
    is_greedy: torch.Tensor | None,
    max_spec_len: int,
    uniform_probs: torch.Tensor | None,
    acceptance_rates: torch.Tensor | None,
    **constants: bool,
) -> None:
    speculation.accept_greedy(
        output_token_ids,
        cu_num_draft_tokens,
        draft_token_ids,
        target_argmax,
        bonus_token_ids,
        is_greedy,
        uniform_probs,
        acceptance_rates,
    )


def _accept_sampled(
    output_token_ids: torch.Tensor,
    cu_num_draft_tokens: torch.Tensor,
    draft_token_ids: torch.Tensor,
    draft_probs: torch.Tensor | None,
    target_probs: torch.Tensor,
    bonus_token_ids: torch.Tensor,
    recovered_token_ids: torch.Tensor,
    uniform_probs: torch.Tensor,
    is_greedy: torch.Tensor,
    max_spec_len: int,
    vocab_size: int,
    acceptance_rates: torch.Tensor | None,
    **constants: bool,
) -> None:
    speculation.accept_sampled(
        output_token_ids,
        cu_num_draft_tokens,
        draft_token_ids,
        draft_probs,
        target_probs,
        bonus_token_ids,
        recovered_token_ids,
        uniform_probs,
        is_greedy,
        acceptance_rates,
    )


def _recover_tokens(
    output_token_ids: torch.Tensor,
    cu_num_draft_tokens: torch.Tensor,
    draft_token_ids: torch.Tensor,
    draft_probs: torch.Tensor | None,
    target_probs: torch.Tensor,
    inverse_exponentials: torch.Tensor,
    vocab_size: int,
    block_size: int,
    **constants: bool,
) -> None:
    speculation.recover_tokens(
        output_token_ids, cu_num_draft_tokens, draft_token_ids, draft_probs, target_probs, inverse_exponentials
    )


def _choose_next_tokens(
    sampled_token_ids: torch.Tensor,
    discard_request_mask: torch.Tensor,
    backup_next_token_ids: torch.Tensor,
    next_token_ids: torch.Tensor,
    valid_sampled_tokens_count: torch.Tensor,
    vocab_size: int,
    *sizes: int,
    **constants: int,
) -> None:
    speculation.choose_next_tokens(
        sampled_token_ids,
        discard_request_mask,
        backup_next_token_ids,
        next_token_ids,
        valid_sampled_tokens_count,
        vocab_size,
    )


def _find_last_accepted(
    cu_num_draft_tokens: torch.Tensor,
    valid_sampled_tokens_count: torch.Tensor,
    query_start_loc: torch.Tensor,
    token_indices_to_sample: torch.Tensor,
    num_rejected_tokens: torch.Tensor,
    num_reqs: int,
) -> None:
    speculation.find_last_accepted(
        cu_num_draft_tokens, valid_sampled_tokens_count, query_start_loc, token_indices_to_sample, num_rejected_tokens
    )


def _advance_draft(
    positions: torch.Tensor,
    block_table: torch.Tensor,
    block_table_stride: int,
    seq_lens: torch.Tensor,
    clamped_positions: torch.Tensor,
    slot_mapping: torch.Tensor,
    *,
    block_size: int,
    max_model_len: int,
    **sizes: int,
) -> None:
    speculation.advance_draft(
        positions,
        block_table,
        seq_lens,
        clamped_positions,
        slot_mapping,
        block_size=block_size,
        max_model_len=max_model_len,
    )


def _make_room_for_drafts(
    *,
    num_padding_slots_per_request: int,
    padding_token_id: int,
    parallel_drafting_token_id: int,
    shift_input_ids: bool,
    **others: torch.Tensor,
) -> None:
    speculation.make_room_for_drafts(
        **{name.removesuffix("_ptr"): tensor for name, tensor in others.items() if name.endswith("_ptr")},
        padding_token_id=padding_token_id,
        parallel_drafting_token_id=parallel_drafting_token_id,
        num_new_tokens=num_padding_slots_per_request,
        shift_input_ids=shift_input_ids,
    )


SLOT_MAPPING = Launcher(_compute_slot_mapping)
# Name of the kernel in vLLM's module -> what is launched instead.
REJECTION = {
    "expand_kernel": Launcher(_expand),
    "rejection_greedy_sample_kernel": Launcher(_accept_greedy),
    "rejection_random_sample_kernel": Launcher(_accept_sampled),
    "sample_recovered_tokens_kernel": Launcher(_recover_tokens),
}
DRAFTING = {
    "eagle_prepare_next_token_padded_kernel": Launcher(_choose_next_tokens),
    "eagle_prepare_inputs_padded_kernel": Launcher(_find_last_accepted),
    "copy_and_expand_eagle_inputs_kernel": Launcher(_make_room_for_drafts),
}
NEXT_DRAFT = Launcher(_advance_draft)
