"""One model family after the other through Hugging Face and through the engine, in this process.

Run as `python -m tests.e2e.families FOLDER NAME...`: builds the models below FOLDER and prints one JSON line a family.
A process of its own, since the engine runs inside it, on whatever device its environment chooses.
"""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.e2e.as_library import use_vllm_as_library
from tests.models import FAMILIES, Family
from tests.references import reference

NUM_NEW_TOKENS = 16
LENGTHS = (3, 20, 61, 300)
SHARED = 200  # the last prompt begins with as many tokens of the one before it
# Steps of 64 tokens: long prompts are computed in chunks, next to requests that decode.
SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 512,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 64,
    "kv_cache_memory_bytes": 64 << 20,
    "seed": 0,
    "disable_log_stats": True,
}


@dataclass
class Result:
    """What one family did on one device."""

    family: str
    device: str = ""
    num_tokens: int = 0  # greedy tokens compared
    num_different: int = 0
    max_logprob_difference: float = 0.0
    num_cached_tokens: int = 0
    error: str = ""


def prompts() -> list[list[int]]:
    """Token ids of random bytes; the last prompt shares its beginning with the one before."""
    generator = torch.Generator().manual_seed(7)
    given = [torch.randint(0, 256, (length,), generator=generator).tolist() for length in LENGTHS]
    return [*given, given[-1][:SHARED] + given[0]]


@dataclass(frozen=True)
class Answers:
    """Hugging Face's, to each prompt."""

    tokens: list[list[int]]
    logprobs: list[list[float]]  # of every token but the first, of the prompt and what follows


class HuggingFace:
    """The model in fp32, by the plain formulas. Its answers are kept (tests/references.py).

    change  what is done to the model before it is asked, by what is in the other `folders`
    """

    def __init__(
        self, family: Family, folder: Path, *folders: Path, change: Callable[[torch.nn.Module], None] | None = None
    ) -> None:
        self._auto_class = getattr(transformers, family.auto_class)
        self._folders = [folder, *folders]
        self._change = change

    def answers(self, prompts: list[list[int]]) -> Answers:
        question = ["families", NUM_NEW_TOKENS, prompts]
        return Answers(**reference("transformers", question, self._folders, lambda: self._compute(prompts)))

    def _compute(self, prompts: list[list[int]]) -> dict[str, Any]:
        model = self._auto_class.from_pretrained(self._folders[0], dtype=torch.float32, attn_implementation="eager")
        self.model = model.eval()
        if self._change is not None:
            self._change(self.model)
        tokens = [self._greedy(prompt) for prompt in prompts]
        texts = [prompt + more for prompt, more in zip(prompts, tokens, strict=True)]
        return {"tokens": tokens, "logprobs": [self._logprobs(text) for text in texts]}

    @torch.inference_mode()
    def _greedy(self, prompt: list[int]) -> list[int]:
        ids = torch.tensor([prompt])
        out = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=NUM_NEW_TOKENS,
            max_new_tokens=NUM_NEW_TOKENS,
        )
        return out[0, len(prompt) :].tolist()

    @torch.inference_mode()
    def _logprobs(self, tokens: list[int]) -> list[float]:
        ids = torch.tensor([tokens])
        logprobs = self.model(ids).logits[0, :-1].float().log_softmax(-1)
        return logprobs.gather(1, ids[0, 1:, None]).flatten().tolist()


def compare(family: Family, folder: Path) -> Result:
    """Both answers to the same prompts. What the engine refuses is a result too."""
    result = Result(family.name)
    wanted = HuggingFace(family, family.build(folder)).answers(prompts())
    try:
        ask_engine(family, folder, wanted, result)
    except Exception as error:
        traceback.print_exc()
        result.error = f"{type(error).__name__}: {error}"
    return result


def ask_engine(family: Family, folder: Path, wanted: Answers, result: Result) -> None:
    """The same prompts, and what becomes of them in `result`."""
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    from core_backend.device import current_device

    result.device = str(current_device())
    greedy = SamplingParams(temperature=0, max_tokens=NUM_NEW_TOKENS, ignore_eos=True)
    llm = None
    try:
        llm = LLM(model=str(folder), **{**SETTINGS, **family.settings})
        # Twice: the second time, prompts are found in the prefix cache.
        for _ in range(2):
            outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts()], greedy, use_tqdm=False)
            answers = [list(output.outputs[0].token_ids) for output in outputs]
            result.num_cached_tokens = sum(output.num_cached_tokens or 0 for output in outputs)
            for answer, tokens in zip(answers, wanted.tokens, strict=True):
                result.num_tokens += len(tokens)
                result.num_different += sum(a != b for a, b in zip(answer, tokens, strict=True))
        texts = [prompt + tokens for prompt, tokens in zip(prompts(), wanted.tokens, strict=True)]
        scoring = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        scored = llm.generate([{"prompt_token_ids": text} for text in texts], scoring, use_tqdm=False)
        for text, output, logprobs in zip(texts, scored, wanted.logprobs, strict=True):
            pairs = zip(output.prompt_logprobs[1:], text[1:], logprobs, strict=True)
            differences = [abs(entry[token].logprob - expected) for entry, token, expected in pairs]
            result.max_logprob_difference = max(result.max_logprob_difference, *differences)
    finally:
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()


def main() -> None:
    use_vllm_as_library()
    from core_backend import upstream_patches

    upstream_patches.inspect_model_in_process()  # no process of its own for every architecture
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or FAMILIES:
        result = compare(FAMILIES[name], folder / name.replace(" ", "-").lower())
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
