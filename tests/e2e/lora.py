"""Two adapters and the plain model, mixed in one batch: the engine next to peft, in this process.

Run as `python -m tests.e2e.lora FOLDER NAME...`: builds the models below FOLDER and prints one JSON line a model.
A process of its own, since the engine runs inside it, on whatever device its environment chooses.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tests.adapters import ATTENTION, LAYERS, save_adapter
from tests.e2e.as_library import use_vllm_as_library
from tests.models import FAMILIES, Family, of
from tests.references import reference

if TYPE_CHECKING:
    from tests.e2e.families import Answers

MODELS = {
    family.name: family
    for family in (
        Family("LLaMA", of("LlamaConfig", vocab_size=330)),  # which is padded to 384
        Family("LLaMA in bf16", of("LlamaConfig"), settings={"dtype": "bfloat16"}),  # where weights are packed
        Family("LLaMA tied", of("LlamaConfig", tie_word_embeddings=True)),
        Family("Qwen2", of("Qwen2Config")),
        Family("Qwen2 tied", of("Qwen2Config", tie_word_embeddings=True)),
        FAMILIES["Qwen3-MoE"],  # whose experts have no LoRA, while its attention does
        Family("LLaMA on two ranks", of("LlamaConfig"), settings={"tensor_parallel_size": 2}),
        Family(
            "LLaMA on two ranks that share adapters",
            of("LlamaConfig"),
            settings={"tensor_parallel_size": 2, "fully_sharded_loras": True},
        ),
    )
}
NUM_NEW_TOKENS = 16
Request = tuple[list[int], str | None]  # token ids, and the adapter's name
LORA = {"enable_lora": True, "max_loras": 2, "max_lora_rank": 8, "max_cpu_loras": 4}


@dataclass
class Result:
    """What one model did on one device."""

    model: str
    device: str = ""
    num_requests: dict[str, int] = field(default_factory=dict)  # by adapter
    num_different_from_peft: int = 0  # requests whose tokens are not peft's
    num_different_when_alone: int = 0
    keeps_adapter_when_others_come: bool = False
    num_changed_by_adapters: int = 0  # prompts that the plain model and the adapters answer differently
    max_logprob_difference: float = 0.0


class Reference:
    """Hugging Face with peft in fp32."""

    def __init__(self, model_folder: Path, adapters: dict[str, Path]) -> None:
        self._folders = [model_folder, *adapters.values()]
        self._adapters = adapters

    @cached_property
    def model(self) -> Any:
        """With all adapters."""
        import transformers
        from peft import PeftModel

        model = transformers.AutoModelForCausalLM.from_pretrained(
            self._folders[0], dtype=torch.float32, attn_implementation="eager"
        )
        (first, folder), *others = self._adapters.items()
        adapted = PeftModel.from_pretrained(model, folder, adapter_name=first).eval()
        for name, other in others:
            adapted.load_adapter(other, adapter_name=name)
        return adapted

    def _with(self, adapter: str | None, call: Any) -> Any:
        with torch.inference_mode():
            if adapter is None:
                with self.model.disable_adapter():
                    return call()
            self.model.set_adapter(adapter)
            return call()

    def answers(self, requests: list["Request"]) -> "Answers":
        """To each request. They are kept."""
        from tests.e2e.families import Answers

        question = ["lora", NUM_NEW_TOKENS, requests]
        return Answers(**reference("peft", question, self._folders, lambda: self._compute(requests)))

    def _compute(self, requests: list["Request"]) -> dict[str, Any]:
        tokens = [self.greedy(*request) for request in requests]
        texts = [(prompt + more, name) for (prompt, name), more in zip(requests, tokens, strict=True)]
        return {"tokens": tokens, "logprobs": [self.logprobs(*text) for text in texts]}

    def greedy(self, prompt: list[int], adapter: str | None) -> list[int]:
        ids = torch.tensor([prompt])
        limits = {"min_new_tokens": NUM_NEW_TOKENS, "max_new_tokens": NUM_NEW_TOKENS}
        out = self._with(
            adapter,
            lambda: self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **limits),
        )
        return out[0, len(prompt) :].tolist()

    def logprobs(self, tokens: list[int], adapter: str | None) -> list[float]:
        """Of every token but the first, given those before it."""
        ids = torch.tensor([tokens])
        logprobs = self._with(adapter, lambda: self.model(input_ids=ids).logits)[0, :-1].log_softmax(-1)
        return logprobs.gather(1, ids[0, 1:, None]).flatten().tolist()


def make_adapters(model_folder: Path, config: Any) -> dict[str, Path]:
    """One for all linear layers, one for a few and the embeddings, with ranks and scales of their own."""
    # vLLM (0.23) has LoRA of the embeddings for LLaMA, not for Qwen2; peft gives a tied lm_head none.
    ends = ["embed_tokens", "lm_head"] if config.model_type == "llama" else []
    if config.tie_word_embeddings:
        ends = ends[:1]
    layers = [*ATTENTION] if hasattr(config, "num_experts") else LAYERS
    some = [name for name in (*ATTENTION[::2], "up_proj") if name in layers]
    configs: dict[str, dict[str, Any]] = {
        "A": {"target_modules": layers},
        "B": {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": [*some, *ends]},
    }
    return {
        name: save_adapter(model_folder, model_folder / f"adapter-{name}", seed, **config)
        for seed, (name, config) in enumerate(configs.items())
    }


def compare(family: Family, folder: Path) -> Result:
    """Both answers to the same prompts, with each adapter and with none."""
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.lora.request import LoRARequest

    from core_backend.device import current_device
    from tests.e2e.families import SETTINGS, prompts

    model_folder = family.build(folder)
    adapters = make_adapters(model_folder, family.config())
    loras = {name: LoRARequest(name, i, str(path)) for i, (name, path) in enumerate(adapters.items(), start=1)}
    # Every prompt three times, one after the other: a step holds requests of all kinds.
    requests: list[Request] = [(prompt, name) for prompt in prompts() for name in (None, *adapters)]
    answers = Reference(model_folder, adapters).answers(requests)
    wanted = answers.tokens
    result = Result(family.name, str(current_device()))
    result.num_requests = {str(name): sum(name == given for _, given in requests) for name in (None, *adapters)}
    result.num_changed_by_adapters = sum(
        len({str(x) for x in wanted[i : i + 3]}) == 3 for i in range(0, len(wanted), 3)
    )

    llm = LLM(model=str(model_folder), **{**SETTINGS, **LORA, **family.settings})

    def ask(requests: list[Request], parameters: SamplingParams) -> list[Any]:
        given = [{"prompt_token_ids": prompt} for prompt, _ in requests]
        adapter_of = [loras.get(name) for _, name in requests]
        return llm.generate(given, parameters, lora_request=adapter_of, use_tqdm=False)

    try:
        greedy = SamplingParams(temperature=0, max_tokens=NUM_NEW_TOKENS, ignore_eos=True)
        # Twice: the second time, prompts are found in the prefix cache.
        for _ in range(2):
            together = [list(output.outputs[0].token_ids) for output in ask(requests, greedy)]
            result.num_different_from_peft += sum(a != b for a, b in zip(together, wanted, strict=True))
        alone = [list(ask([request], greedy)[0].outputs[0].token_ids) for request in requests]
        result.num_different_when_alone = sum(a != b for a, b in zip(alone, together, strict=True))
        result.keeps_adapter_when_others_come = wanted[1] == _answer_while_slots_move(
            llm.llm_engine,
            requests[1][0],
            greedy,
            loras["A"],
            [LoRARequest(f"B{i}", i, loras["B"].path) for i in (3, 4)],
        )
        texts = [(prompt + tokens, name) for (prompt, name), tokens in zip(requests, wanted, strict=True)]
        scoring = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        for (text, _), output, logprobs in zip(texts, ask(texts, scoring), answers.logprobs, strict=True):
            pairs = zip(output.prompt_logprobs[1:], text[1:], logprobs, strict=True)
            differences = [abs(entry[token].logprob - expected) for entry, token, expected in pairs]
            result.max_logprob_difference = max(result.max_logprob_difference, *differences)
    finally:
        llm.llm_engine.engine_core.shutdown()
        cleanup_dist_env_and_memory()
    return result


def _answer_while_slots_move(
    engine: Any, prompt: list[int], parameters: Any, lora: Any, others: list[Any]
) -> list[int]:
    """Two more adapters are loaded between two steps, into as many slots: the request's own is read back."""
    engine.add_request("moved", {"prompt_token_ids": prompt}, parameters, lora_request=lora)
    for _ in range(3):
        engine.step()
    for other in others:
        engine.add_lora(other)
    while engine.has_unfinished_requests():
        outputs = engine.step()
    return list(outputs[0].outputs[0].token_ids)


def main() -> None:
    use_vllm_as_library()
    # A fork of a process that has run an engine waits for ever for threads that it does not have.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    from core_backend import upstream_patches

    upstream_patches.inspect_model_in_process()  # no process of its own for every architecture
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or MODELS:
        result = compare(MODELS[name], folder / name.replace(" ", "-").lower())
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
