"""Models with experts on several ranks: real processes, one engine in each, compared with Hugging Face on one.

`run(...)` starts the ranks. A rank is `python -m tests.e2e.expert_parallel FOLDER TP DP WAY,... FAMILY...`.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.e2e.as_library import use_vllm_as_library
from tests.models import FAMILIES, Family, wide
from tests.ranks import run_ranks

BALANCED = "+balanced"  # after a way: with redundant experts, moved between ranks every few steps
BALANCING = {
    "enable_eplb": True,
    "eplb_config": {"num_redundant_experts": 4, "window_size": 5, "step_interval": 5, "use_async": False},
}


@dataclass
class RankResult:
    """What one rank's requests gave."""

    family: str
    way: str
    rank: int
    num_requests: int
    num_different: int  # tokens that are not Hugging Face's
    num_rearranged: int = 0  # how often experts were moved between ranks


def run(
    folder: Path,
    tensor_parallel: int,
    data_parallel: int,
    ways: list[str],
    families: list[str],
    environment: dict[str, str] | None = None,
) -> list[RankResult]:
    """Results of all ranks, for each family and each way between ranks. Raises RuntimeError if a rank fails."""
    for name in families:
        family_of(name).build(folder / name)
    rows = run_ranks(
        "tests.e2e.expert_parallel",
        [str(folder), str(tensor_parallel), str(data_parallel), ",".join(ways), *families],
        tensor_parallel * data_parallel,
        environment,
        num_meetings=len(families) * len(ways),
    )
    return [RankResult(**row) for row in rows]


def family_of(name: str) -> Family:
    """By name; "NAME, wide" has tokens of 1,024 elements, which is the least that the fused operators take."""
    if not name.endswith(", wide"):
        return FAMILIES[name]
    return wide(FAMILIES[name.removesuffix(", wide")])


def _main() -> None:
    use_vllm_as_library()
    folder, tensor_parallel, data_parallel, ways, *families = sys.argv[1:]
    from core_backend import upstream_patches

    upstream_patches.inspect_model_in_process()
    upstream_patches.apply_to_configuration()
    ports = iter(os.environ["PORTS"].split(","))
    for name in families:
        for way in ways.split(","):
            os.environ["MASTER_PORT"] = next(ports)
            result = _one(Path(folder) / name, name, int(tensor_parallel), int(data_parallel), way)
            print(json.dumps(asdict(result)), flush=True)
    os._exit(0)  # the groups' threads would wait for ranks that have ended already


def _one(folder: Path, name: str, tensor_parallel: int, data_parallel: int, way: str) -> RankResult:
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.distributed.eplb.eplb_state import EplbState

    from tests.e2e.families import NUM_NEW_TOKENS, SETTINGS, HuggingFace, prompts

    rank = int(os.environ["RANK"])
    # Ranks that share tensors answer together; the others have prompts of their own, and are done at different times.
    mine = prompts()[rank // tensor_parallel :: data_parallel]
    settings: dict[str, Any] = {
        **SETTINGS,
        "tensor_parallel_size": tensor_parallel,
        "data_parallel_size": data_parallel,
        "enable_expert_parallel": True,
        "distributed_executor_backend": "external_launcher",
        "additional_config": {"moe_communication": way.removesuffix(BALANCED)},
        **(BALANCING if way.endswith(BALANCED) else {}),
    }
    rearranged = _count_calls(EplbState, "rearrange")
    llm = LLM(model=str(folder), **settings)
    greedy = SamplingParams(temperature=0, max_tokens=NUM_NEW_TOKENS, ignore_eos=True)
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in mine], greedy, use_tqdm=False)
    del llm
    cleanup_dist_env_and_memory()
    wanted = HuggingFace(family_of(name), folder).answers(mine).tokens
    num_different = sum(
        a != b
        for tokens, output in zip(wanted, outputs, strict=True)
        for a, b in zip(tokens, output.outputs[0].token_ids, strict=True)
    )
    return RankResult(name, way, rank, len(mine), num_different, len(rearranged))


def _count_calls(owner: type, method: str) -> list[None]:
    """One element for every later call of the method."""
    calls: list[None] = []
    original = getattr(owner, method)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return original(*args, **kwargs)

    setattr(owner, method, counted)
    return calls


if __name__ == "__main__":
    _main()
