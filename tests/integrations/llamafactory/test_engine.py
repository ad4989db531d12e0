"""LLaMA-Factory's ChatModel on our engine: the same text as on its own huggingface engine."""

import json

import pytest

from ascend_adapters.errors import RequestError, SettingError
from tests.adapters import save_adapter
from tests.e2e.test_cancellation import becomes_idle, wait_until_busy
from tests.references import reference
from tests.tiers import some

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300), pytest.mark.usefixtures("_event_loop")]

GREEDY = {"do_sample": False, "max_new_tokens": 24}
SYSTEM = "You answer in one short sentence."
TOOLS = json.dumps(
    [
        {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }
    ]
)
QUESTIONS = [
    ("What is the capital of France?", None, None),
    ("Name three colours.", SYSTEM, None),
    ("What is the weather in Rome?", None, TOOLS),
    ("Write a line about the sea.", SYSTEM, TOOLS),
    ("2 + 3 = ?", "", None),
    ("Erkläre den Regenbogen. 彩虹 🌈", None, None),
    ("word " * 300, None, None),
    ("Say it again.", SYSTEM, None),
]
# The others of the 32 that are asked where time allows (pytest --slow).
MORE_QUESTIONS = [
    (question, system, tools)
    for question in (
        "Who wrote Hamlet?",
        "Name a fruit.",
        "What is rain?",
        "def add(a, b):",
        "Count to five.",
        "7 * 8 = ?",
    )
    for system, tools in ((None, None), (SYSTEM, None), (None, TOOLS), (SYSTEM, TOOLS))
]
TEMPLATES = ("smollm2", "qwen", "llama3", "deepseek3")


def chat_model(folder, backend, template="smollm2", **arguments):
    from llamafactory.chat.chat_model import ChatModel

    return ChatModel(
        {
            "model_name_or_path": str(folder),
            "infer_backend": backend,
            "template": template,
            "infer_dtype": "float32",
            "vllm_config": json.dumps({"max_model_len": 2048, "enable_lora": True, "max_lora_rank": 8, "max_loras": 2}),
            **GREEDY,
            **arguments,
        }
    )


def answers(model, questions=QUESTIONS):
    told = []
    for question, system, tools in questions:
        (response,) = model.chat([{"role": "user", "content": question}], system, tools)
        # Bytes of a character that was cut: the engine holds them back, the huggingface engine prints a sign for each.
        text = response.response_text.rstrip("\ufffd")
        told.append([text, response.prompt_length, response.finish_reason])
    return told


def answers_on_huggingface(folder, template="smollm2", questions=QUESTIONS, adapter=None):
    """Of LLaMA-Factory's own engine. They are kept (tests/references.py)."""
    arguments = {"adapter_name_or_path": str(adapter), "finetuning_type": "lora"} if adapter else {}
    folders = [folder, adapter] if adapter else [folder]
    return reference(
        "llamafactory",
        ["chat", template, GREEDY, questions],
        folders,
        lambda: answers(chat_model(folder, "huggingface", template, **arguments), questions),
    )


# Of templates that were made for other models.
MARKS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<｜User｜>", "<｜Assistant｜>"]  # noqa: RUF001  # as DeepSeek writes them


@pytest.fixture(scope="module")
def folder(chat_model_folder, tmp_path_factory):
    """The chat model with the marks of all templates, in fp32: LLaMA-Factory's huggingface engine loads what the
    folder's config.json says, whatever infer_dtype (0.9.5).
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("fp32") / "model"
    tokenizer = AutoTokenizer.from_pretrained(chat_model_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    model = AutoModelForCausalLM.from_pretrained(chat_model_folder, dtype=torch.float32)
    torch.manual_seed(0)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory):
    return save_adapter(folder, tmp_path_factory.mktemp("lora") / "adapter", seed=1)


@pytest.fixture(scope="module")
def model(folder):
    """On our engine."""
    ours = chat_model(folder, "ascend")
    yield ours
    ours.engine.close()


@pytest.mark.parametrize("template", some(TEMPLATES, "smollm2"))
def test_the_base_model_says_what_it_says_on_the_huggingface_engine(folder, model, template):
    ours = chat_model(folder, "ascend", template)
    assert ours.engine.model.engine is model.engine.model.engine
    assert answers(ours) == answers_on_huggingface(folder, template)


def test_so_does_the_model_with_an_adapter(folder, model, adapter):
    with_adapter = {"adapter_name_or_path": str(adapter), "finetuning_type": "lora"}
    ours = chat_model(folder, "ascend", **with_adapter)
    tuned = answers(ours)
    assert tuned == answers_on_huggingface(folder, adapter=adapter)
    assert tuned != answers(model)
    question = [{"role": "user", "content": QUESTIONS[0][0]}]
    assert ours.chat(question, adapter="")[0].response_text == answers(model)[0][0]
    with pytest.raises(RequestError, match="adapter='other' is none of those given: adapter"):
        ours.chat(question, adapter="other")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("tuned", [False, True], ids=["base", "tuned"])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.usefixtures("model")
def test_32_prompts_have_the_same_answers(folder, adapter, template, tuned):
    questions = [*QUESTIONS, *MORE_QUESTIONS]
    assert len(questions) == 32
    arguments = {"adapter_name_or_path": str(adapter), "finetuning_type": "lora"} if tuned else {}
    ours = chat_model(folder, "ascend", template, **arguments)
    theirs = answers_on_huggingface(folder, template, questions, adapter if tuned else None)
    assert answers(ours, questions) == theirs


def test_a_stream_adds_up_to_the_answer(model):
    question = [{"role": "user", "content": QUESTIONS[0][0]}]
    pieces = list(model.stream_chat(question))
    assert "".join(pieces) == model.chat(question)[0].response_text
    assert len(pieces) > 3


def test_several_answers_and_stop_words(model):
    question = [{"role": "user", "content": QUESTIONS[0][0]}]
    responses = model.chat(question, num_return_sequences=3)
    assert len({response.response_text for response in responses}) > 1
    assert all(0 < response.response_length <= 24 for response in responses)
    whole = model.chat(question)[0].response_text
    assert model.chat(question, stop="France")[0].response_text == whole.partition("France")[0]


def test_a_stream_that_is_left_is_aborted(model):
    question = [{"role": "user", "content": "Write a long story."}]
    stream = model.stream_chat(question, max_new_tokens=1500)
    next(stream)
    wait_until_busy(model.engine.model)
    stream.close()
    assert becomes_idle(model.engine.model)


def test_a_template_whose_marks_the_model_does_not_know_is_refused(chat_model_folder):
    with pytest.raises(SettingError, match=r"template='llama3' needs tokens that the model has no embeddings for"):
        chat_model(chat_model_folder, "ascend", "llama3")
