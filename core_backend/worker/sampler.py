"""The sampler: vLLM's, with the greedy choice on our operators."""

import torch
from vllm.v1.sample.sampler import Sampler

from core_backend.ops.table import operators


class AscendSampler(Sampler):
    """From logits to tokens."""

    @staticmethod
    def greedy_sample(logits: torch.Tensor) -> torch.Tensor:
        """logits [num_reqs, vocab_size] -> [num_reqs] int64"""
        return operators().argmax(logits)
