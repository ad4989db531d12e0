"""Templates on models of the kind that they are for: the same text as on LLaMA-Factory's huggingface engine."""

import json

import pytest

from tests.integrations.llamafactory.test_engine import MARKS, SYSTEM
from tests.models import FAMILIES

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("_event_loop")]

TEMPLATES = {"Qwen2": "qwen", "Qwen3": "qwen3_nothink", "LLaMA 3.1": "llama3", "DeepSeek-V3": "deepseek3"}
QUESTIONS = ["Hi", "What is the capital of France?", "2 + 3 = ?", "Erkläre den Regenbogen. 彩虹 🌈", "word " * 40]


def build_with_marks(name, folder):
    """A tiny model with random weights, whose tokenizer knows the marks of all templates."""
    from transformers import AutoTokenizer

    FAMILIES[name].build(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": [*MARKS, "<|begin_of_text|>"]})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_model_says_what_it_says_on_the_huggingface_engine(name, tmp_path):
    from llamafactory.chat.chat_model import ChatModel

    arguments = {
        "model_name_or_path": str(build_with_marks(name, tmp_path / "model")),
        "template": TEMPLATES[name],
        "infer_dtype": "float32",
        "do_sample": False,
        "max_new_tokens": 16,
        "vllm_config": json.dumps({"kv_cache_memory_bytes": 64 << 20, "max_num_batched_tokens": 64}),
    }

    def answers(backend):
        chat = ChatModel({**arguments, "infer_backend": backend})
        try:
            told = [chat.chat([{"role": "user", "content": q}], s)[0] for q in QUESTIONS for s in (None, SYSTEM)]
            # Bytes of a character that was cut: the engine holds them back.
            return [(response.response_text.rstrip("\ufffd"), response.prompt_length) for response in told]
        finally:
            if backend == "ascend":
                chat.engine.close()

    wanted = answers("huggingface")
    assert len({text for text, _ in wanted}) > len(QUESTIONS)
    assert answers("ascend") == wanted
