"""npu_top_k_top_p."""

import torch
from torch import Tensor

from core_backend.simulator.emulation.registry import emulates
from core_backend.simulator.emulation.rules import floating, rule

TOP_K_TOP_P = "op-plugin docs, torch_npu-npu_top_k_top_p"
MAX_K = 1024


# The wheel's Meta kernel has no defaults, so it fails where p or k is left out.
@emulates("npu::npu_top_k_top_p", source=TOP_K_TOP_P, check_meta=False)
def npu_top_k_top_p(logits: Tensor, p: Tensor | None = None, k: Tensor | None = None) -> Tensor:
    """-inf below the k-th logit, then below the fewest largest ones whose probabilities exceed p."""
    floating(TOP_K_TOP_P, logits=logits)
    rule(logits.dim() == 2, "logits are [batch, vocabulary]", TOP_K_TOP_P, logits=tuple(logits.shape))
    rule(p is not None or k is not None, "p and k are not both None", "CANN ops-nn, aclnnApplyTopKTopP", p=p, k=k)
    rows = []
    for row in range(logits.shape[0]):
        values = logits[row].float()
        kept = torch.ones_like(values, dtype=torch.bool)
        if k is not None:
            kept &= values >= values.topk(_checked_k(k, logits, row)).values[-1]
        if p is not None:
            kept &= _within_p(values.masked_fill(~kept, float("-inf")), _checked_p(p, logits, row))
        rows.append(logits[row].masked_fill(~kept, float("-inf")))
    return torch.stack(rows) if rows else logits.clone()


def _within_p(values: Tensor, p: float) -> Tensor:
    """From the smallest up, logits are dropped while their probabilities sum to no more than 1 - p."""
    ordered, order = values.sort(stable=True)
    dropped = ordered.softmax(-1).cumsum(-1) <= 1 - p
    dropped[-1] = False
    return torch.zeros_like(dropped).scatter(0, order, ~dropped)


def _checked_k(k: Tensor, logits: Tensor, row: int) -> int:
    rule(
        k.dtype == torch.int32 and k.shape == logits.shape[:1],
        "k is int32 [batch]",
        TOP_K_TOP_P,
        dtype=k.dtype,
        shape=tuple(k.shape),
    )
    value = int(k[row])
    rule(
        1 <= value <= min(MAX_K, logits.shape[1]),
        f"k is between 1 and {MAX_K}, and at most the vocabulary",
        TOP_K_TOP_P,
        k=value,
    )
    return value


def _checked_p(p: Tensor, logits: Tensor, row: int) -> float:
    rule(
        p.dtype == logits.dtype and p.shape == logits.shape[:1],
        "p is [batch] in the dtype of logits",
        TOP_K_TOP_P,
        dtype=p.dtype,
        shape=tuple(p.shape),
    )
    return float(p[row])
