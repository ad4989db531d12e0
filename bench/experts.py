"""`make bench-experts`: does the time per token depend on how many experts there are, or on how many are chosen?

One stream through a mixture of experts with random weights, with 16, 32 and 64 experts of which 4 are chosen. The
engines take turns; each step's ratio is to the engine with half as many experts, round by round.
"""

import os
import tempfile
from pathlib import Path

from bench.contestants import Embedded
from bench.spread import spread
from bench.workloads import W2, made_up_prompts
from tests.models import byte_tokenizer

NUM_EXPERTS = (16, 32, 64)
TOP_K = 4
NUM_ROUNDS = 5
NUM_THREADS = len(os.sched_getaffinity(0))


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        engines = {count: Embedded(str(_model(Path(folder) / str(count), count)), NUM_THREADS) for count in NUM_EXPERTS}
        rounds = [
            {count: _ms_per_token(engine, seed) for count, engine in engines.items()} for seed in range(NUM_ROUNDS + 1)
        ][1:]  # the first is a warm-up
        for engine in engines.values():
            engine.close()
    print(f"\n{TOP_K} experts chosen per token, bf16, {NUM_THREADS} threads, median of {NUM_ROUNDS} (min - max)")
    for count in NUM_EXPERTS:
        print(f"{count:>3} experts: {spread([round[count] for round in rounds], 2)} ms per token", end="")
        if count // 2 in NUM_EXPERTS:
            print(f", {spread([round[count] / round[count // 2] for round in rounds], 2)} times that of half as many")
        else:
            print()


def _ms_per_token(engine: Embedded, seed: int) -> float:
    (prompt,) = made_up_prompts(str(seed), 1, W2.prompt_len)
    first, last = engine.stream([token % 1000 for token in prompt], W2.output_len)
    return 1000 * (last - first) / (W2.output_len - 1)


def _model(folder: Path, num_experts: int) -> Path:
    """8 layers of 1,024 elements, experts of 512; 0.2 to 0.8 billion parameters."""
    import torch
    import transformers

    config = transformers.Qwen3MoeConfig(
        vocab_size=1024,
        hidden_size=1024,
        num_hidden_layers=8,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=64,
        num_experts=num_experts,
        num_experts_per_tok=TOP_K,
        moe_intermediate_size=512,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=1023,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.generation_config = transformers.GenerationConfig()
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
