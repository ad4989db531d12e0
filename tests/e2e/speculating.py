"""The same prompts with each way of speculating and without, in this process.

Run as `python -m tests.e2e.speculating FOLDER NAME...`: builds a target model and what drafts for it below FOLDER, and
prints one JSON line a way. A process of its own, since the engine runs inside it, on whatever device its environment
chooses.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.e2e.as_library import use_vllm_as_library
from tests.e2e.families import SETTINGS
from tests.e2e.ways_of_speculating import NUM_DRAFT_TOKENS, NUM_NEW_TOKENS, WAYS
from tests.models import FAMILIES, SEED, byte_tokenizer


@dataclass
class Result:
    """What the engine did in one way."""

    way: str
    device: str
    greedy: list[list[int]]  # tokens of every prompt
    seeded: list[list[int]]
    is_repeatable: bool  # the seeded ones, asked for again
    mixed: list[list[int]]  # greedy requests in one batch with sampled ones
    logprobs: list[list[float]]  # of the tokens in `mixed`
    num_drafted: int
    num_accepted: int


def prompts() -> list[list[int]]:
    """Token ids of random bytes, three times over; the longest is computed in chunks."""
    generator = torch.Generator().manual_seed(SEED)
    return [3 * torch.randint(0, 256, (length,), generator=generator).tolist() for length in (2, 9, 14, 40)]


def build_target(folder: Path) -> Path:
    """A small LLaMA whose next token depends on the last one most: what drafts for it is sometimes right."""
    FAMILIES["LLaMA"].build(folder)
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name] *= 0.2
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def build_draft(folder: Path, target: Path) -> None:
    """The target with noise on its weights."""
    model = transformers.AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    torch.manual_seed(SEED)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * parameter.std() * torch.randn_like(parameter))
    model.generation_config = transformers.GenerationConfig()
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def build_eagle_head(folder: Path, target: Path) -> None:
    """The target's first layer on the last token's embedding, and a little of the target's hidden state."""
    folder.mkdir()
    config = json.loads((target / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    weights = {
        name.removeprefix("model."): weight
        for name, weight in load_file(target / "model.safetensors").items()
        if ".layers.0." in name and "input_layernorm" not in name  # EAGLE has none there
    }
    size = config["hidden_size"]
    torch.manual_seed(SEED)
    weights["fc.weight"] = torch.cat((torch.eye(size), 0.1 * torch.randn(size, size) / size**0.5), dim=1)
    save_file(weights, folder / "model.safetensors")
    byte_tokenizer().save_pretrained(folder)


def run(way: str, folder: Path) -> Result:
    """All prompts: greedy, sampled with a seed, and mixed."""
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    from core_backend.device import current_device

    settings = {**SETTINGS, "disable_log_stats": False}
    if speculation := dict(WAYS[way]):
        if "model" in speculation:
            speculation["model"] = str(folder / speculation["model"])
        settings["speculative_config"] = {**speculation, "num_speculative_tokens": NUM_DRAFT_TOKENS}
    llm = LLM(model=str(folder / "target"), **settings)

    def generate(params: Any) -> list[Any]:
        asked = [{"prompt_token_ids": prompt} for prompt in prompts()]
        return [output.outputs[0] for output in llm.generate(asked, params, use_tqdm=False)]

    try:
        length = {"max_tokens": NUM_NEW_TOKENS, "ignore_eos": True}
        greedy = SamplingParams(temperature=0, **length)
        seeded = SamplingParams(temperature=1, seed=5, top_k=20, top_p=0.9, **length)
        first, again = generate(seeded), generate(seeded)
        scored = SamplingParams(temperature=0, logprobs=0, **length)
        mixed = generate([scored, SamplingParams(temperature=1, **length)] * 2)[::2]
        return Result(
            way=way,
            device=str(current_device()),
            greedy=[list(output.token_ids) for output in generate(greedy)],
            seeded=[list(output.token_ids) for output in first],
            is_repeatable=[output.token_ids for output in first] == [output.token_ids for output in again],
            mixed=[list(output.token_ids) for output in mixed],
            logprobs=[
                [entry[token].logprob for entry, token in zip(output.logprobs, output.token_ids, strict=True)]
                for output in mixed
            ],
            num_drafted=_counted(llm, "num_draft_tokens"),
            num_accepted=_counted(llm, "num_accepted_tokens"),
        )
    finally:
        llm.llm_engine.engine_core.shutdown()
        cleanup_dist_env_and_memory()


def _counted(llm: Any, name: str) -> int:
    return sum(int(m.value) for m in llm.get_metrics() if m.name == f"vllm:spec_decode_{name}")


def main() -> None:
    use_vllm_as_library()
    from core_backend import upstream_patches

    upstream_patches.inspect_model_in_process()  # no process of its own for every architecture
    folder = Path(sys.argv[1])
    target = build_target(folder / "target")
    build_draft(folder / "draft", target)
    build_eagle_head(folder / "eagle", target)
    for way in sys.argv[2:] or WAYS:
        print(json.dumps(asdict(run(way, folder))), flush=True)


if __name__ == "__main__":
    main()
