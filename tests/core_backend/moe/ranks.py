"""Experts on several ranks without an engine: each way between ranks against the plain formula.

`run(...)` starts the ranks; one is `python -m tests.core_backend.moe.ranks WAY,... CASE...`.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

from tests.ranks import run_ranks

NUM_EXPERTS, TOP_K = 8, 2

# Tokens of each rank, the ranks repeating if there are more; and which experts they go to.
CASES = {
    "equal": ((6,), "random"),
    "unequal": ((5, 1, 9), "random"),
    "one rank has no token": ((7, 0), "random"),
    "two experts get all": ((4, 3), "first"),
    "one rank's experts get none": ((4, 3), "not last"),
}


@dataclass
class Outcome:
    """What one rank saw of one case."""

    case: str
    way: str
    rank: int
    num_tokens: int  # of all ranks
    max_difference: float
    sent_bytes: int  # by this rank to others
    token_bytes: int


def run(num_ranks: int, ways: list[str], environment: dict[str, str] | None = None) -> list[Outcome]:
    """Outcomes of all cases on all ranks."""
    rows = run_ranks("tests.core_backend.moe.ranks", [",".join(ways), *CASES], num_ranks, environment)
    return [Outcome(**row) for row in rows]


def _main() -> None:
    ways, *cases = sys.argv[1:]
    import torch
    from vllm.config import ParallelConfig, VllmConfig, set_current_vllm_config
    from vllm.distributed import ensure_model_parallel_initialized, get_ep_group, init_distributed_environment
    from vllm.platforms import current_platform

    from core_backend.device import current_device

    rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    is_npu = current_device().type == "npu"
    if is_npu:
        current_platform.set_device(torch.device("npu", rank))
    parallel = ParallelConfig(
        data_parallel_size=num_ranks,
        enable_expert_parallel=True,
        distributed_executor_backend="external_launcher",
    )
    with set_current_vllm_config(VllmConfig(parallel_config=parallel)):
        init_distributed_environment(num_ranks, rank, "env://", rank, current_platform.dist_backend)
        ensure_model_parallel_initialized(1, 1)
    with torch.inference_mode():
        for name in cases:
            for way in ways.split(","):
                print(json.dumps(asdict(_one(name, way, rank, num_ranks, is_npu))), flush=True)
    torch.distributed.barrier(get_ep_group().cpu_group)
    os._exit(0)


def _one(name: str, way: str, rank: int, num_ranks: int, is_npu: bool) -> Outcome:
    import torch
    from vllm.distributed import get_dp_group, get_ep_group
    from vllm.forward_context import DPMetadata, override_forward_context

    from core_backend.moe.parallel import ExpertParallel, Placement
    from core_backend.ops.table import operators

    hidden_size = 1024 if is_npu else 64  # the fused operators take no less
    pattern, routing = CASES[name]
    sizes = [pattern[i % len(pattern)] for i in range(num_ranks)]
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(sum(sizes), hidden_size, generator=generator)
    weights = torch.rand(sum(sizes), TOP_K, generator=generator)
    ids = _experts_of(routing, sum(sizes), generator)
    matrices = torch.randn(NUM_EXPERTS, hidden_size, hidden_size, generator=generator) / hidden_size**0.5

    placement = Placement((NUM_EXPERTS // num_ranks,) * num_ranks, rank)
    mine = slice(placement.first, placement.first + placement.num_local)
    ops = operators()
    device = "npu" if is_npu else "cpu"
    local = ops.pack_expert_weight(matrices[mine].to(device))
    moe: Any = SimpleNamespace(
        moe_parallel_config=SimpleNamespace(use_ep=True, ep_size=num_ranks, is_sequence_parallel=False),
        experts_per_token=TOP_K,
        hidden_dim=hidden_size,
        max_num_tokens=max(pattern),
    )
    kernel = ExpertParallel(ops, moe, placement, way)
    rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    metadata = DPMetadata(torch.tensor(sizes, dtype=torch.int32))
    communicators = [group.device_communicator for group in (get_dp_group(), get_ep_group())]
    before = sum(communicator.sent_bytes for communicator in communicators)
    with override_forward_context(SimpleNamespace(dp_metadata=metadata)), metadata.sp_local_sizes(1):
        out = kernel.run(
            *(tensor[rows].to(device) for tensor in (x, weights, ids)),
            lambda rows, counts: ops.grouped_matmul(rows, local, counts),
        )
    sent = sum(communicator.sent_bytes for communicator in communicators) - before
    expected = _plainly(x, weights, ids, matrices)[rows]
    assert out.shape == expected.shape
    difference = float((out.cpu() - expected).abs().max()) if len(expected) else 0.0
    return Outcome(name, way, rank, sum(sizes), difference, sent, hidden_size * x.element_size())


def _experts_of(routing: str, num_tokens: int, generator: Any) -> Any:
    import torch

    num_open = {"random": NUM_EXPERTS, "first": TOP_K, "not last": NUM_EXPERTS // 2}[routing]
    order = torch.rand(num_tokens, num_open, generator=generator).argsort(1)
    return order[:, :TOP_K].int()


def _plainly(x: Any, weights: Any, ids: Any, matrices: Any) -> Any:
    """One token and one choice after the other."""
    import torch

    out = torch.zeros_like(x)
    for token in range(len(x)):
        for weight, expert in zip(weights[token], ids[token].tolist(), strict=True):
            out[token] += weight * (x[token] @ matrices[expert].t())
    return out


if __name__ == "__main__":
    _main()
