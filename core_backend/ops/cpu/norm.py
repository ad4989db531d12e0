"""Root mean square normalization."""

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last dimension, the mean in fp32.

    x        [..., hidden_size]
    weight   [hidden_size]
    returns  [..., hidden_size], the dtype of x
    Source: arXiv 1910.07467.
    """
    return F.rms_norm(x, weight.shape, weight, epsilon)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual), x + residual): the two steps between a layer's blocks.

    x, residual  [..., hidden_size]; neither is changed
    returns      two tensors [..., hidden_size]: normalized, and the new residual
    """
    residual = x + residual
    return rms_norm(residual, weight, epsilon), residual
