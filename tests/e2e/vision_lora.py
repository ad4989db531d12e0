"""The plain model and two adapters in one batch, some of whose requests have pictures: the engine next to peft.

Run as `python -m tests.e2e.vision_lora FOLDER`; prints one JSON line. A process of its own, as families.py is.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.e2e.as_library import use_vllm_as_library
from tests.e2e.families import NUM_NEW_TOKENS, SETTINGS
from tests.e2e.vision import TEXT_TOKENS, HuggingFace, Request, requests
from tests.references import reference
from tests.vision_models import VISION_FAMILIES

FAMILY = VISION_FAMILIES["Qwen2-VL"]
TARGETS = r".*language_model.*\.({})"
RANKS = {"A": (8, "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"), "B": (4, "q_proj|v_proj|up_proj")}


@dataclass
class Result:
    """Requests of all three kinds, counted."""

    device: str
    num_requests: int
    num_with_pictures: int
    num_prompts_answered_in_three_ways: int
    num_different_from_peft: int
    num_different_when_alone: int


def main() -> None:
    use_vllm_as_library()
    from core_backend import upstream_patches
    from tests.adapters import save_adapter

    upstream_patches.inspect_model_in_process()
    folder = FAMILY.build(Path(sys.argv[1]) / "model")
    adapters = {
        name: save_adapter(
            folder,
            Path(sys.argv[1]) / name,
            seed,
            auto_class="AutoModelForImageTextToText",
            r=rank,
            target_modules=TARGETS.format(layers),
        )
        for seed, (name, (rank, layers)) in enumerate(RANKS.items())
    }
    asked = [(request, name) for request in requests(FAMILY) for name in (None, *adapters)]

    def compute() -> list[list[int]]:
        from peft import PeftModel

        theirs = HuggingFace(folder)
        theirs.model = PeftModel.from_pretrained(theirs.model, adapters["A"], adapter_name="A").eval()
        theirs.model.load_adapter(adapters["B"], adapter_name="B")
        return [_with_adapter(theirs, request, name) for request, name in asked]

    question = ["vision, LoRA", NUM_NEW_TOKENS, [[*request.fingerprint(), name] for request, name in asked]]
    wanted = reference("peft", question, [folder, *adapters.values()], compute)
    print(json.dumps(asdict(_ask_engine(folder, adapters, asked, wanted))), flush=True)


def _with_adapter(theirs: HuggingFace, request: Request, name: str | None) -> list[int]:
    if name is None:
        with theirs.model.disable_adapter():
            return theirs.answer(request).tokens
    theirs.model.set_adapter(name)
    return theirs.answer(request).tokens


def _ask_engine(
    folder: Path, adapters: dict[str, Path], asked: list[tuple[Request, str | None]], wanted: list[list[int]]
) -> Result:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    from core_backend.device import current_device

    loras = {name: LoRARequest(name, i, str(path)) for i, (name, path) in enumerate(adapters.items(), start=1)}
    greedy = SamplingParams(
        temperature=0, max_tokens=NUM_NEW_TOKENS, min_tokens=NUM_NEW_TOKENS, allowed_token_ids=TEXT_TOKENS
    )
    limits: dict[str, Any] = {"limit_mm_per_prompt": {"image": 2, "video": 1}}
    llm = LLM(model=str(folder), **SETTINGS, **limits, enable_lora=True, max_loras=2, max_lora_rank=8)

    def answers(some: list[tuple[Request, str | None]]) -> list[list[int]]:
        outputs = llm.generate(
            [request.for_engine(FAMILY) for request, _ in some],
            greedy,
            lora_request=[loras.get(name or "") for _, name in some],
            use_tqdm=False,
        )
        return [list(output.outputs[0].token_ids) for output in outputs]

    together = answers(asked)
    alone = [answers([request])[0] for request in asked]
    llm.llm_engine.engine_core.shutdown()
    return Result(
        device=str(current_device()),
        num_requests=len(asked),
        num_with_pictures=sum(bool(request.images or request.videos) for request, _ in asked),
        num_prompts_answered_in_three_ways=sum(
            len({str(tokens) for tokens in wanted[i : i + 3]}) == 3 for i in range(0, len(wanted), 3)
        ),
        num_different_from_peft=sum(a != b for a, b in zip(together, wanted, strict=True)),
        num_different_when_alone=sum(a != b for a, b in zip(together, alone, strict=True)),
    )


if __name__ == "__main__":
    main()
