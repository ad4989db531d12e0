"""What speculative decoding does to small tensors between two steps, in plain torch.

vLLM has a Triton kernel for each of these; the names of the arguments are the kernels', without `_ptr`. Nothing here
waits for the device: lengths that only the device knows are never read on the host.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

REJECTED = -1  # in place of a token
PAD_SLOT_ID = -1


def expand(output: Tensor, values: Tensor, cu_num_tokens: Tensor, replace_from: float, replace_to: float) -> None:
    """Give every token its request's value, with `replace_from` replaced.

    output         [num_tokens]
    values         [num_reqs]
    cu_num_tokens  [num_reqs]: inclusive sums of the requests' tokens
    Source: vllm/v1/sample/rejection_sampler.py, expand_kernel.
    """
    replaced = torch.where(values == replace_from, replace_to, values)
    output.copy_(replaced[_owner(cu_num_tokens, output.shape[0])])


def accept_greedy(
    output_token_ids: Tensor,
    cu_num_draft_tokens: Tensor,
    draft_token_ids: Tensor,
    target_argmax: Tensor,
    bonus_token_ids: Tensor,
    is_greedy: Tensor | None,
    uniform_probs: Tensor | None = None,
    acceptance_rates: Tensor | None = None,
) -> None:
    """Keep the draft tokens up to the first that is not the most likely one, which takes its place.

    output_token_ids     [num_reqs, max_num_draft_tokens + 1]: written for greedy requests, up to the last token kept
    cu_num_draft_tokens  [num_reqs]: inclusive sums
    draft_token_ids      [num_tokens], at least one
    target_argmax        [num_tokens]: the most likely token at each draft token's place
    bonus_token_ids      [num_reqs, 1]: what follows if all draft tokens are kept
    is_greedy            [num_reqs] bool; None: all are
    uniform_probs        [num_tokens] in [0, 1), with acceptance_rates
    acceptance_rates     [max_num_draft_tokens]: keep a draft token with this probability, whatever the model says
    Source: vllm/v1/sample/rejection_sampler.py, rejection_greedy_sample_kernel.
    """
    if acceptance_rates is None:
        is_accepted = draft_token_ids == target_argmax
    else:
        is_accepted = _by_rate(cu_num_draft_tokens, uniform_probs, acceptance_rates)
    rows = torch.ones_like(cu_num_draft_tokens, dtype=torch.bool) if is_greedy is None else is_greedy
    _keep_accepted(
        output_token_ids, rows, cu_num_draft_tokens, draft_token_ids, is_accepted, target_argmax, bonus_token_ids
    )


def accept_sampled(
    output_token_ids: Tensor,
    cu_num_draft_tokens: Tensor,
    draft_token_ids: Tensor,
    draft_probs: Tensor | None,
    target_probs: Tensor,
    bonus_token_ids: Tensor,
    recovered_token_ids: Tensor,
    uniform_probs: Tensor,
    is_greedy: Tensor,
    acceptance_rates: Tensor | None = None,
) -> None:
    """Keep each draft token with probability target / draft; the first that is not kept is replaced.

    draft_probs          [num_tokens, vocab_size]; None: the proposer was certain of its tokens
    target_probs         [num_tokens, vocab_size]
    recovered_token_ids  [num_tokens]: what replaces a draft token, see recover_tokens
    The rest as in accept_greedy; written for requests that are not greedy.
    Source: vllm/v1/sample/rejection_sampler.py, rejection_random_sample_kernel; arXiv 2211.17192.
    """
    if acceptance_rates is None:
        chosen = draft_token_ids.long().unsqueeze(1)
        target = target_probs.gather(1, chosen).squeeze(1)
        draft = torch.ones_like(target) if draft_probs is None else draft_probs.gather(1, chosen).squeeze(1)
        is_accepted = (draft > 0) & (target / draft >= uniform_probs)
    else:
        is_accepted = _by_rate(cu_num_draft_tokens, uniform_probs, acceptance_rates)
    _keep_accepted(
        output_token_ids,
        ~is_greedy,
        cu_num_draft_tokens,
        draft_token_ids,
        is_accepted,
        recovered_token_ids,
        bonus_token_ids,
    )


def recover_tokens(
    output_token_ids: Tensor,
    cu_num_draft_tokens: Tensor,
    draft_token_ids: Tensor,
    draft_probs: Tensor | None,
    target_probs: Tensor,
    inverse_exponentials: Tensor,
) -> None:
    """For every draft token, sample what replaces it if it is rejected: from max(target - draft, 0).

    output_token_ids      [num_tokens]: written
    inverse_exponentials  [num_reqs, vocab_size]: 1 / q, q exponentially distributed: the largest p / q is a sample of p
    The rest as in accept_sampled.
    Source: vllm/v1/sample/rejection_sampler.py, sample_recovered_tokens_kernel.
    """
    if draft_probs is None:
        missing = target_probs.scatter(1, draft_token_ids.long().unsqueeze(1), 0)
    else:
        missing = (target_probs - draft_probs).clamp_(min=0)
    owner = _owner(cu_num_draft_tokens, draft_token_ids.shape[0])
    output_token_ids.copy_((missing * inverse_exponentials[owner]).argmax(dim=-1))


def choose_next_tokens(
    sampled_token_ids: Tensor,
    discard_request_mask: Tensor,
    backup_next_token_ids: Tensor,
    next_token_ids: Tensor,
    valid_sampled_tokens_count: Tensor,
    vocab_size: int,
) -> None:
    """The last token that each request has now, and how many it got in this step.

    sampled_token_ids           [num_reqs, max_num_draft_tokens + 1]; -1 where rejected
    discard_request_mask        [num_reqs] bool: requests whose prompt is not computed yet, and which got none
    backup_next_token_ids       [>= num_reqs]: the last token of a request that got none
    next_token_ids              [num_reqs]: written
    valid_sampled_tokens_count  [num_reqs]: written
    Source: vllm/v1/spec_decode/utils.py, eagle_prepare_next_token_padded_kernel.
    """
    is_valid = (sampled_token_ids != REJECTED) & (sampled_token_ids < vocab_size)
    is_valid &= ~discard_request_mask[: len(is_valid)].unsqueeze(1)
    places = torch.arange(is_valid.shape[1], device=is_valid.device)
    last = torch.where(is_valid, places, -1).amax(dim=1)
    last_token = sampled_token_ids.gather(1, last.clamp(min=0).unsqueeze(1)).squeeze(1)
    next_token_ids.copy_(torch.where(last >= 0, last_token, backup_next_token_ids[: len(last)]))
    valid_sampled_tokens_count.copy_(is_valid.sum(dim=1))


def find_last_accepted(
    cu_num_draft_tokens: Tensor,
    valid_sampled_tokens_count: Tensor,
    query_start_loc: Tensor,
    token_indices_to_sample: Tensor,
    num_rejected_tokens: Tensor,
) -> None:
    """Where in the step each request's last accepted token is, and how many rejected ones follow it.

    cu_num_draft_tokens         [num_reqs]: inclusive sums
    valid_sampled_tokens_count  [num_reqs]: see choose_next_tokens
    query_start_loc             [>= num_reqs + 1]
    token_indices_to_sample     [num_reqs]: written
    num_rejected_tokens         [num_reqs]: written
    Source: vllm/v1/spec_decode/utils.py, eagle_prepare_inputs_padded_kernel.
    """
    num_draft_tokens = _counts(cu_num_draft_tokens)
    rejected = (num_draft_tokens + 1 - valid_sampled_tokens_count).where(num_draft_tokens > 0, 0)
    num_rejected_tokens.copy_(rejected)
    token_indices_to_sample.copy_(query_start_loc[1 : len(rejected) + 1] - 1 - rejected)


def advance_draft(
    positions: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    clamped_positions: Tensor,
    slot_mapping: Tensor,
    *,
    block_size: int,
    max_model_len: int,
) -> None:
    """Move every request of the draft model one token on.

    positions          [num_reqs]: of the last token
    block_table        [num_reqs, max_num_blocks]
    seq_lens           [>= num_reqs]: written; 1 for a request that has reached max_model_len
    clamped_positions  [num_reqs]: written; 0 for such a request
    slot_mapping       [>= num_reqs]: written; -1 for such a request, and past the last
    Source: vllm/v1/spec_decode/utils.py, eagle_step_slot_mapping_metadata_kernel.
    """
    num_reqs = positions.shape[0]
    following = positions + 1
    is_past_end = following >= max_model_len
    following = following.masked_fill(is_past_end, 0)
    block_ids = block_table.gather(1, (following // block_size).long().unsqueeze(1)).squeeze(1)
    slots = block_ids.long() * block_size + following % block_size
    slot_mapping[:num_reqs] = slots.masked_fill(is_past_end, PAD_SLOT_ID)
    slot_mapping[num_reqs:] = PAD_SLOT_ID
    seq_lens[:num_reqs] = (seq_lens[:num_reqs] + 1).clamp(max=max_model_len).masked_fill(is_past_end, 1)
    clamped_positions.copy_(following)


def make_room_for_drafts(
    target_token_ids: Tensor,
    target_positions: Tensor,
    next_token_ids: Tensor,
    out_input_ids: Tensor,
    out_positions: Tensor,
    out_is_rejected_token_mask: Tensor,
    out_is_masked_token_mask: Tensor,
    out_new_token_indices: Tensor,
    out_hidden_state_mapping: Tensor,
    query_start_loc: Tensor,
    query_end_loc: Tensor,
    *,
    padding_token_id: int,
    parallel_drafting_token_id: int,
    num_new_tokens: int,
    shift_input_ids: bool,
) -> None:
    """The draft model's input: each request's accepted tokens, its next token, masks, then what was rejected.

    target_token_ids, target_positions  [num_tokens]: the step that the target model has computed
    next_token_ids                      [num_reqs]: what it sampled
    out_input_ids, out_positions, out_is_rejected_token_mask, out_is_masked_token_mask
                                        [>= num_tokens + num_reqs * (num_new_tokens - shift_input_ids)]: written
    out_new_token_indices               [num_reqs * num_new_tokens]: written: where the next tokens and masks are
    out_hidden_state_mapping            [num_tokens]: written if shift_input_ids: where each token has gone
    query_start_loc                     [num_reqs + 1]
    query_end_loc                       [num_reqs]: each request's last accepted token
    num_new_tokens                      of a request: its next token, and the masks behind it
    shift_input_ids                     whether the first token of each request is left out, as EAGLE does
    Source: vllm/v1/spec_decode/utils.py, copy_and_expand_eagle_inputs_kernel.
    """
    device = target_token_ids.device
    num_tokens, num_reqs = target_token_ids.shape[0], next_token_ids.shape[0]
    shift = int(shift_input_ids)
    begins, ends = query_start_loc[:-1].long(), query_start_loc[1:].long()
    num_kept = query_end_loc.long() - begins + 1 - shift
    requests = torch.arange(num_reqs, device=device)
    out_begins = begins + requests * (num_new_tokens - shift)
    out_ends = ends + (requests + 1) * (num_new_tokens - shift)

    num_out = num_tokens + num_reqs * (num_new_tokens - shift)
    owner = _owner(out_ends, num_out)
    place = torch.arange(num_out, device=device) - out_begins[owner]
    behind = place - num_kept[owner]  # 0: the next token; below: accepted; above: masks, then rejected
    source = (begins[owner] + shift + place).clamp(max=num_tokens - 1)
    is_rejected = behind >= num_new_tokens
    is_masked = (behind > 0) & ~is_rejected

    token_ids = torch.where(behind < 0, target_token_ids[source], next_token_ids[owner])
    token_ids = token_ids.masked_fill(is_masked, parallel_drafting_token_id)
    out_input_ids[:num_out] = token_ids.masked_fill(is_rejected, padding_token_id)
    out_positions[:num_out] = (target_positions[begins][owner] + place).masked_fill(is_rejected, 0)
    out_is_rejected_token_mask[:num_out] = is_rejected
    out_is_masked_token_mask[:num_out] = is_masked
    new = torch.arange(num_new_tokens, device=device)
    out_new_token_indices.copy_(((out_begins + num_kept).unsqueeze(1) + new).flatten())
    if shift_input_ids:
        from_request = _owner(ends, num_tokens)
        within = torch.arange(num_tokens, device=device) - begins[from_request]
        out_hidden_state_mapping.copy_(out_begins[from_request] + within)


def _owner(cu_num_tokens: Tensor, num_tokens: int) -> Tensor:
    """[num_tokens]: which request each token belongs to, by the inclusive sums of their tokens."""
    tokens = torch.arange(num_tokens, device=cu_num_tokens.device, dtype=cu_num_tokens.dtype)
    return torch.searchsorted(cu_num_tokens.contiguous(), tokens, right=True)


def _counts(cu_num_tokens: Tensor) -> Tensor:
    return cu_num_tokens - F.pad(cu_num_tokens[:-1], (1, 0))


def _by_rate(cu_num_draft_tokens: Tensor, uniform_probs: Tensor | None, acceptance_rates: Tensor) -> Tensor:
    assert uniform_probs is not None
    begins = cu_num_draft_tokens - _counts(cu_num_draft_tokens)
    owner = _owner(cu_num_draft_tokens, uniform_probs.shape[0])
    place = torch.arange(uniform_probs.shape[0], device=begins.device) - begins[owner]
    return uniform_probs < acceptance_rates[place]


def _keep_accepted(
    output_token_ids: Tensor,
    rows: Tensor,
    cu_num_draft_tokens: Tensor,
    draft_token_ids: Tensor,
    is_accepted: Tensor,
    replacements: Tensor,
    bonus_token_ids: Tensor,
) -> None:
    """For the requests in `rows`: the draft tokens before the first rejected one, and what comes in its place."""
    num_draft_tokens = _counts(cu_num_draft_tokens).unsqueeze(1)
    places = torch.arange(output_token_ids.shape[1], device=output_token_ids.device)
    begins = cu_num_draft_tokens.unsqueeze(1) - num_draft_tokens
    token = (begins + places).clamp(max=draft_token_ids.shape[0] - 1)
    is_leading = (is_accepted[token] & (places < num_draft_tokens)).int().cumprod(dim=1)
    num_accepted = is_leading.sum(dim=1, keepdim=True)
    chosen = torch.where(is_leading.bool(), draft_token_ids[token], replacements[token])
    chosen = torch.where(places == num_draft_tokens, bonus_token_ids.view(-1, 1), chosen)
    is_written = (places <= num_accepted) & rows.unsqueeze(1)
    output_token_ids.copy_(torch.where(is_written, chosen, output_token_ids))
