"""Tiny models of real architectures: Hugging Face configurations with seeded random weights.

Large enough to tell a wrong model from a right one: weights keep the scale of activations, so that attention is
peaked and every norm, bias and position matters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

if TYPE_CHECKING:
    import transformers

SEED = 20
VOCAB_SIZE = 320  # 256 bytes, and room for what models mark up their input with
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A kind of model: its configuration, and the class that Hugging Face runs it with."""

    name: str
    config: Callable[[], Any]
    auto_class: str = "AutoModelForCausalLM"
    # Chip -> part of the message with which it is refused there.
    refused: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # of the engine, besides those of all families

    def build(self, folder: Path) -> Path:
        """The model's folder: config, weights in safetensors, and a tokenizer of bytes."""
        import transformers

        torch.manual_seed(SEED)
        model = getattr(transformers, self.auto_class).from_config(self.config(), dtype=torch.float32)
        randomize(model)
        model.generation_config = transformers.GenerationConfig()
        model.save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        return folder


def randomize(model: torch.nn.Module) -> None:
    """Weights that keep the scale of what goes through them; norms and biases near their first values, not at them."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.normal_(std=1 / math.sqrt(parameter.shape[-1]))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.uniform_(0, 0.4)  # Hugging Face takes closed groups for 0, so that no open one may be below


def of_transformers(name: str, **values: Any) -> Any:
    """An object of the class that transformers has under `name`: what it is imported for, as that takes seconds."""
    import transformers

    return getattr(transformers, name)(**values)


def byte_tokenizer() -> "transformers.PreTrainedTokenizerFast":
    """One token per byte."""
    tokenizer = Tokenizer(BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    return of_transformers(
        "PreTrainedTokenizerFast",
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        model_max_length=512,
        chat_template=CHAT_TEMPLATE,
    )


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 256,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,  # which the NPU's attention takes; also hidden_size / num_attention_heads, for models without it
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 258,
    "pad_token_id": 259,
    "tie_word_embeddings": False,
}


def of(config_class: str, **values: Any) -> Callable[[], Any]:
    """A configuration of the common sizes, with `values` of its own."""
    return lambda: of_transformers(config_class, **{**SIZES, **values})


# The sizes that the NPU's operators have: 512 latent elements, heads of 128 and 64 rotary ones.
MLA: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
DEEPSEEK_MOE: dict[str, Any] = {
    "n_routed_experts": 16,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
}
CAPPED = "soft-capped attention is refused"
ALL_NPUS = ("910B3", "910_9391", "310P3")
NO_MLA = {"310P3": "MLA is refused"}
NO_WINDOW = {"310P3": "sliding window attention is refused"}

FAMILIES = {
    family.name: family
    for family in (
        Family("LLaMA", of("LlamaConfig")),
        Family("LLaMA 3.1", of("LlamaConfig", rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True)),
        Family("Qwen2", of("Qwen2Config")),
        Family("Qwen3", of("Qwen3Config")),
        Family("Mistral", of("MistralConfig", sliding_window=24), refused=NO_WINDOW),
        Family("Gemma", of("GemmaConfig", tie_word_embeddings=True)),
        Family(
            "Gemma 2",
            of("Gemma2Config", tie_word_embeddings=True, sliding_window=24, query_pre_attn_scalar=64),
            refused=dict.fromkeys(ALL_NPUS, CAPPED) | NO_WINDOW,
        ),
        Family(
            "Gemma 3",
            of("Gemma3TextConfig", tie_word_embeddings=True, sliding_window=24, query_pre_attn_scalar=64),
            refused=NO_WINDOW,
        ),
        Family("Phi", of("PhiConfig", intermediate_size=4 * 256, num_key_value_heads=4, partial_rotary_factor=0.5)),
        Family("Phi-3", of("Phi3Config")),
        Family("GLM", of("GlmConfig", head_dim=64)),
        Family("GLM-4", of("Glm4Config", head_dim=64)),
        Family("StableLM", of("StableLmConfig")),
        Family("Granite", of("GraniteConfig", attention_multiplier=0.1, residual_multiplier=0.5)),
        Family("OLMo 2", of("Olmo2Config")),
        Family("GPT-2", of("GPT2Config", n_embd=256, n_head=4, n_layer=2, n_positions=512)),
        Family("Mixtral", of("MixtralConfig", num_local_experts=8, num_experts_per_tok=2)),
        Family(
            "Qwen3-MoE",
            of("Qwen3MoeConfig", num_experts=16, num_experts_per_tok=4, moe_intermediate_size=64, norm_topk_prob=True),
        ),
        Family(
            "Qwen2-MoE",
            of(
                "Qwen2MoeConfig",
                num_experts=16,
                num_experts_per_tok=4,
                moe_intermediate_size=64,
                shared_expert_intermediate_size=96,
            ),
        ),
        Family("OLMoE", of("OlmoeConfig", num_experts=16, num_experts_per_tok=4)),
        Family(
            "DeepSeek-V2",
            of(
                "DeepseekV2Config",
                **MLA,
                **DEEPSEEK_MOE,
                topk_method="greedy",
                norm_topk_prob=False,
                n_group=1,
                topk_group=1,
            ),
            refused=NO_MLA,
        ),
        Family(
            "DeepSeek-V3",
            of(
                "DeepseekV3Config",
                **MLA,
                **DEEPSEEK_MOE,
                q_lora_rank=96,
                topk_method="noaux_tc",
                scoring_func="sigmoid",
                n_group=4,
                topk_group=2,
            ),
            refused=NO_MLA,
        ),
        Family(
            "GLM-4 MoE",
            of(
                "Glm4MoeConfig", **DEEPSEEK_MOE, norm_topk_prob=True, n_group=1, topk_group=1, partial_rotary_factor=0.5
            ),
        ),
    )
}


def wide(family: Family) -> Family:
    """The same with tokens of 1,024 elements."""

    def config() -> Any:
        wider = family.config()
        wider.hidden_size = 1024
        return wider

    return replace(family, name=f"{family.name}, wide", config=config)
