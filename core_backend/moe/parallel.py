"""Tokens to the ranks that hold their experts, and back: by all-gather, by all-to-all, or by the fused operators (MC2).

Each way is written once, over vLLM's groups; on the CPU they speak gloo, on NPUs HCCL.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from vllm.distributed import get_dp_group, get_ep_group, get_tp_group, tensor_model_parallel_all_reduce
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig

from core_backend.device import current_device
from core_backend.hardware import ExpertShape, MoeWay
from core_backend.ops.vocabulary import OperatorSet


class Experts(Protocol):
    """The experts of this rank: [num_rows, hidden_size] sorted by expert, and counts [num_local] -> the same shape."""

    def __call__(self, rows: Tensor, counts: Tensor) -> Tensor: ...


class Tokens(NamedTuple):
    """Some tokens of a step, and where they go."""

    x: Tensor  # [num_tokens, hidden_size]
    weights: Tensor  # [num_tokens, top_k] fp32
    ids: Tensor  # [num_tokens, top_k] int32


@dataclass(frozen=True, slots=True)
class Placement:
    """Which experts are where: rank after rank, each holds the next few."""

    per_rank: tuple[int, ...]
    rank: int

    @classmethod
    def of(cls, layer: Any) -> "Placement":
        """Where vLLM has put the experts of a layer. Raises NotImplementedError if they are not in order."""
        parallel = layer.moe_parallel_config
        if parallel.ep_size > 1 and layer.expert_placement_strategy != "linear":
            raise NotImplementedError(
                f"expert_placement_strategy={layer.expert_placement_strategy!r} is not supported: use 'linear'."
            )
        each, rest = divmod(layer.global_num_experts, parallel.ep_size)
        return cls(tuple(each + (rank < rest) for rank in range(parallel.ep_size)), parallel.ep_rank)

    @property
    def num_experts(self) -> int:
        return sum(self.per_rank)

    @property
    def num_local(self) -> int:
        return self.per_rank[self.rank]

    @property
    def first(self) -> int:
        """The first expert of this rank."""
        return sum(self.per_rank[: self.rank])


def run_local(ops: OperatorSet, placement: Placement, tokens: Tokens, experts: Experts) -> Tensor:
    """What the experts of this rank add to each token: [num_tokens, hidden_size]."""
    routed = ops.route_to_experts(
        tokens.x,
        tokens.ids,
        num_experts=placement.num_experts,
        first=placement.first,
        num_local=placement.num_local,
    )
    return ops.combine_experts(experts(routed.rows, routed.counts), routed.row_of, routed.counts, tokens.weights)


def run_all_to_all(ops: OperatorSet, placement: Placement, tokens: Tokens, experts: Experts) -> Tensor:
    """Send each token to the ranks of its experts only, and add up what comes back."""
    communicator: Any = get_ep_group().device_communicator
    routed = ops.route_to_experts(
        tokens.x, tokens.ids, num_experts=placement.num_experts, first=0, num_local=placement.num_experts
    )
    for_each_rank = torch.split(routed.counts, list(placement.per_rank))
    # How many rows each of our experts gets from each rank: [num_ranks, num_local].
    arriving = communicator.all_to_all_counts(for_each_rank)
    sent = torch.stack([counts.sum() for counts in for_each_rank]).tolist()
    received = arriving.sum(1).tolist()
    rows = communicator.all_to_allv(routed.rows, sent, received)
    # They come rank by rank; the experts want them expert by expert.
    expert_of_row = torch.arange(placement.num_local, device=rows.device, dtype=torch.int32).repeat(len(received))
    expert_of_row = expert_of_row.repeat_interleave(arriving.flatten(), output_size=sum(received)).unsqueeze(1)
    local = ops.route_to_experts(
        rows, expert_of_row, num_experts=placement.num_local, first=0, num_local=placement.num_local
    )
    as_they_came = ops.combine_experts(
        experts(local.rows, local.counts), local.row_of, local.counts, tokens.weights.new_ones(len(rows), 1)
    )
    back = communicator.all_to_allv(as_they_came, received, sent)
    return ops.combine_experts(back, routed.row_of, routed.counts, tokens.weights)


def run_mc2(ops: OperatorSet, placement: Placement, tokens: Tokens, experts: Experts, max_tokens: int) -> Tensor:
    """The same by operators that compute and communicate at once.

    max_tokens  the most that any rank has; all ranks send as many, since none may send nothing
    """
    x, weights, ids = _filled_up(tokens, max_tokens)
    sent = ops.dispatch_to_ranks(
        x,
        ids,
        weights if current_device().hardware.mc2_sends_weights else None,
        group=get_ep_group().device_group,
        num_experts=placement.num_experts,
    )
    return ops.combine_from_ranks(experts(sent.rows, sent.counts), ids, weights, sent)[: len(tokens.x)]


def _filled_up(tokens: Tokens, num_tokens: int) -> Tokens:
    """With zeros for tokens, which go to some experts with weight zero."""
    x, weights, ids = tokens
    missing = num_tokens - len(x)
    if not missing:
        return tokens
    some_experts = torch.arange(ids.shape[1], dtype=ids.dtype, device=ids.device).expand(missing, -1)
    return Tokens(
        torch.cat((x, x.new_zeros(missing, x.shape[1]))),
        torch.cat((weights, weights.new_zeros(missing, weights.shape[1]))),
        torch.cat((ids, some_experts)),
    )


class ExpertParallel:
    """Runs the experts of one layer, wherever they are.

    vLLM calls this a kernel, and asks it whether results are summed over the ranks already.
    """

    is_monolithic = False
    can_overlap_shared_experts = False

    def __init__(
        self, ops: OperatorSet, moe: FusedMoEConfig, placement: Placement, forced: MoeWay | None = None
    ) -> None:
        """forced: the way to use instead of what the chip table chooses. Raises ValueError beyond its limits."""
        self.ops = ops
        self.parallel = moe.moe_parallel_config
        self.placement = placement
        self.forced = forced
        self.shape = ExpertShape(
            moe.moe_parallel_config.ep_size, placement.num_experts, moe.experts_per_token, moe.hidden_dim
        )
        if forced and self.parallel.use_ep:
            current_device().hardware.check_moe_layer(forced, self.shape, self._share(moe.max_num_tokens))

    @cached_property
    def may_exchange(self) -> bool:
        """Whether tokens may travel: then what run() returns is always summed over all ranks."""
        chosen = {way.name for way in current_device().hardware.moe_communication}
        return self.parallel.use_ep and ({self.forced} if self.forced else chosen) != {"all_gather"}

    def output_is_reduced(self) -> bool:
        """Whether nothing is left to sum over the tensor-parallel ranks."""
        return self.may_exchange

    def run(self, x: Tensor, topk_weights: Tensor, topk_ids: Tensor, experts: Experts) -> Tensor:
        """What the experts make of x, weighted.

        x                       [num_tokens, hidden_size]; with tensor parallelism the same on those ranks
        topk_weights, topk_ids  [num_tokens, top_k] fp32 and int32
        returns                 [num_tokens, hidden_size]; see output_is_reduced
        """
        tokens = Tokens(x, topk_weights, topk_ids)
        # The same on all ranks, and so is what is chosen by it.
        largest_share = self._share(max(self._sizes() or [len(x)]))
        way = self._way(largest_share)
        if way == "all_gather":
            return self._gathered(tokens, experts)
        mine = Tokens(*map(self._cut, tokens))
        if way == "mc2":
            return self._joined(run_mc2(self.ops, self.placement, mine, experts, largest_share), len(x))
        return self._joined(run_all_to_all(self.ops, self.placement, mine, experts), len(x))

    def _way(self, num_tokens: int) -> MoeWay:
        """num_tokens: the largest share that one rank sends."""
        if not self.parallel.use_ep:
            return "all_gather"
        return self.forced or current_device().hardware.choose_moe_communication(self.shape, num_tokens)

    def _sizes(self) -> list[int] | None:
        """Tokens of each rank that has tokens of its own; None without data parallelism."""
        metadata = get_forward_context().dp_metadata
        return None if metadata is None else metadata.get_chunk_sizes_across_dp_rank()

    def _gathered(self, tokens: Tokens, experts: Experts) -> Tensor:
        """All tokens on every rank; each adds what its experts make of them."""
        sizes = self._sizes()
        if sizes is None:
            out = run_local(self.ops, self.placement, tokens, experts)
        else:
            group = get_ep_group() if self.parallel.is_sequence_parallel else get_dp_group()
            everybodys = Tokens(*group.all_gatherv(list(tokens), sizes=sizes))
            out = group.reduce_scatterv(run_local(self.ops, self.placement, everybodys, experts), dim=0, sizes=sizes)
        tensor_parallel_is_left = self.parallel.use_ep and not self.parallel.is_sequence_parallel
        if self.may_exchange and tensor_parallel_is_left and get_tp_group().world_size > 1:
            out = tensor_model_parallel_all_reduce(out)
        return out

    def _tensor_ranks(self) -> int:
        """Ranks that have the same tokens, and can share them out."""
        return 1 if self.parallel.is_sequence_parallel else int(get_tp_group().world_size)

    def _share(self, num_tokens: int) -> int:
        """Tokens that one of these ranks takes."""
        return -(-num_tokens // self._tensor_ranks())

    def _cut(self, rows: Tensor) -> Tensor:
        """This rank's share of what all of them have."""
        if self._tensor_ranks() == 1:
            return rows
        share = self._share(len(rows))
        first = get_tp_group().rank_in_group * share
        return rows[first : first + share]

    def _joined(self, mine: Tensor, num_tokens: int) -> Tensor:
        """The shares of all tensor-parallel ranks, one after the other."""
        if self._tensor_ranks() == 1:
            return mine
        share = self._share(num_tokens)
        ends = [min(num_tokens, share * (rank + 1)) for rank in range(self._tensor_ranks())]
        sizes = [end - begin for begin, end in pairwise([0, *ends])]
        joined: Tensor = get_tp_group().all_gatherv(mine, sizes=sizes)
        return joined
