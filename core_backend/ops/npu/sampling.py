"""What sampling may choose from."""

import torch_npu
from torch import Tensor

from core_backend.ops.cpu import sampling as plain


def apply_top_k_top_p(logits: Tensor, k: Tensor | None, p: Tensor | None) -> Tensor:
    """See ops/cpu. The operator takes k up to 1,024, but vLLM's k of a request without top-k is the vocabulary's size,
    and asking for the largest k would wait for the device: with a k, the rows are sorted instead.
    """
    if k is not None:
        logits = plain.apply_top_k_top_p(logits, k, None)
    if p is None:
        return logits
    return torch_npu.npu_top_k_top_p(logits, p.to(logits.dtype), None)
