"""What sampling chooses, and may choose from."""

from torch import Tensor

HIDDEN = float("-inf")


def argmax(logits: Tensor) -> Tensor:
    """Where each row's largest logit is; the first of equal ones.

    logits   [num_reqs, vocab_size]
    returns  [num_reqs] int64
    """
    return logits.argmax(dim=-1)


def apply_top_k_top_p(logits: Tensor, k: Tensor | None, p: Tensor | None) -> Tensor:
    """Hide all but each row's k largest logits, then all but the fewest that make up probability p.

    logits   [num_reqs, vocab_size]; may be changed in place
    k        [num_reqs] integer in 1..vocab_size, or None; logits equal to the k-th are kept with it
    p        [num_reqs] in (0, 1], or None; at least one logit of a row stays
    returns  [num_reqs, vocab_size]: logits, -inf where hidden
    Source: vllm/v1/sample/ops/topk_topp_sampler.py, apply_top_k_top_p_pytorch.
    """
    if k is None and p is None:
        return logits
    ordered, order = logits.sort(dim=-1, stable=True)
    if k is not None:
        kth = ordered.gather(1, (ordered.shape[1] - k.long()).unsqueeze(1))
        ordered = ordered.masked_fill(ordered < kth, HIDDEN)
    if p is not None:
        hidden = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - p.unsqueeze(1)
        hidden[:, -1] = False
        ordered = ordered.masked_fill(hidden, HIDDEN)
    return logits.scatter(1, order, ordered)
