"""What LoRA adds to the layers' outputs: vLLM's punica interface, on grouped matrix multiplications.

vLLM's own wrapper for CPUs takes slot -1, no adapter, for the last slot wherever a batch mixes both.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_base import PunicaWrapperBase

from core_backend.lora.rows import NO_ADAPTER, AdapterRows
from core_backend.ops.table import operators


class AscendPunicaWrapper(PunicaWrapperBase):
    """Shrinks rows to an adapter's rank and expands them to the layer's output, on every device alike.

    Stacked weights hold one adapter per slot: lora_a [num_slots, 1, rank, input_size], lora_b [num_slots, 1,
    output_size, rank]. Source: vllm/lora/punica_wrapper/punica_base.py (0.23).
    """

    def __init__(
        self, max_num_batched_tokens: int, max_batches: int, device: torch.device | str, **kwargs: Any
    ) -> None:
        super().__init__(max_num_batched_tokens, max_batches, device)
        # Rows past the step's are read too where a step is padded.
        self._embeddings_indices.zero_()
        self._tokens = self._samples = AdapterRows.of([], 0, device)
        self._slot_of_logits: int | None = None

    def update_metadata(
        self,
        mapping: LoRAMapping,
        lora_index_to_id: list[int | None],
        max_loras: int,
        vocab_size: int,
        **kwargs: Any,
    ) -> None:
        """Once per step whose requests differ from the last one's.

        mapping           the adapter's id of every token, and of every row that logits are computed of; 0: none
        lora_index_to_id  the id in each slot
        """
        slot_of: dict[int, int] = {0: NO_ADAPTER}
        slot_of.update((lora_id, slot) for slot, lora_id in enumerate(lora_index_to_id) if lora_id is not None)
        token_slots = [slot_of[lora_id] for lora_id in mapping.index_mapping]
        sample_slots = [slot_of[lora_id] for lora_id in mapping.prompt_mapping]
        num_slots = len(lora_index_to_id)
        self._tokens = AdapterRows.of(token_slots, num_slots, self.device)
        self._samples = AdapterRows.of(sample_slots, num_slots, self.device)
        # The embedding layer looks a token up in the table of all slots, one below the other.
        offsets = torch.tensor(token_slots, dtype=torch.int64).clamp(min=0) * vocab_size
        self._embeddings_indices[1, : len(token_slots)].copy_(offsets)

    @contextmanager
    def logits_of(self, slot: int) -> Iterator[None]:
        """All logits that are computed meanwhile are of one adapter."""
        self._slot_of_logits = slot
        try:
            yield
        finally:
            self._slot_of_logits = None

    def add_shrink(
        self,
        y: Sequence[Tensor] | Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        scale: float,
        **kwargs: Any,
    ) -> None:
        """y[i] += x @ lora_a[i].T * scale, each row with its adapter's.

        y  [num_slices, num_tokens, rank] fp32, or as many tensors
        x  [num_tokens, input_size]
        """
        rows = self._tokens
        if not len(rows):
            return
        taken = x[rows.index]
        for buffer, lora_a in zip(y, lora_a_stacked, strict=True):
            shrunk = _shrink(taken, lora_a, rows, scale)
            buffer.index_add_(0, rows.index, shrunk.to(buffer.dtype))

    def add_expand(
        self,
        y: Tensor,
        x: Sequence[Tensor] | Tensor,
        lora_b_stacked: tuple[Tensor, ...],
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        """y[:, slice i] += x[i] @ lora_b[i].T, each row with its adapter's; without add_inputs, = instead of +=.

        y  [num_tokens, output_size]
        x  [num_slices, num_tokens, rank] or wider: vLLM gathers them from all ranks also where each has them all
        """
        rows = self._tokens
        if not len(rows):
            return
        begin = offset_start
        for buffer, lora_b, size in zip(x, lora_b_stacked, output_slices, strict=True):
            taken = buffer[rows.index, : lora_b.shape[-1]]
            _put(y[:, begin : begin + size], rows, _times_adapter(taken, lora_b, rows), add=add_inputs)
            begin += size

    def add_lora_embedding(
        self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        """y += x @ lora_b.T, each row with its adapter's; x: what the tokens' embeddings shrink to."""
        self.add_expand(y, [x], (lora_b_stacked,), (lora_b_stacked.shape[2],), add_inputs=add_inputs)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[Tensor, ...] | None = None,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        """y[:, slice i] += x @ lora_a[i].T @ lora_b[i].T * scale, each row with its adapter's."""
        rows = self._tokens
        if not len(rows):
            return
        taken = x[rows.index]
        begin = 0
        for lora_a, lora_b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            shrunk = _shrink(taken, lora_a, rows, scale)
            _put(y[:, begin : begin + size], rows, _times_adapter(shrunk, lora_b, rows), add=add_inputs)
            begin += size

    def add_lora_logits(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: Tensor,
        lora_b_stacked: Tensor,
        scale: float,
        *,
        buffer: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """y += x @ lora_a.T @ lora_b.T * scale, each row with its adapter's.

        y  [num_rows, padded vocab_size]: the adapter has no padding
        """
        rows = self._samples
        if self._slot_of_logits is not None:
            rows = AdapterRows.of([self._slot_of_logits] * len(x), len(lora_a_stacked), self.device)
        if not len(rows):
            return
        shrunk = _shrink(x[rows.index], lora_a_stacked, rows, scale)
        _put(y[:, : lora_b_stacked.shape[2]], rows, _times_adapter(shrunk, lora_b_stacked, rows), add=True)


def _shrink(x: Tensor, lora_a: Tensor, rows: AdapterRows, scale: float) -> Tensor:
    shrunk = _times_adapter(x, lora_a, rows)
    return shrunk if scale == 1.0 else shrunk * scale  # vLLM puts an adapter's own scale into lora_b


def _times_adapter(x: Tensor, stacked: Tensor, rows: AdapterRows) -> Tensor:
    """Sorted rows, each times its adapter's weight."""
    weight = stacked[:, 0].transpose(1, 2)
    return operators().grouped_matmul(x.to(weight.dtype), weight, rows.counts)


def _put(y: Tensor, rows: AdapterRows, values: Tensor, *, add: bool) -> None:
    if add:
        y.index_add_(0, rows.index, values.to(y.dtype))
    else:
        y.index_copy_(0, rows.index, values.to(y.dtype))
