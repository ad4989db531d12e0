"""LLaMA-Factory's ChatModel on our engine: the same text as on its own huggingface engine."""

import json

import pytest
from llamafactory.chat.chat_model import ChatModel

from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import RequestError
from llamafactory_ascend import register
from tests.e2e.test_cancellation import becomes_idle, wait_until_busy

register()
pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

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
TEMPLATES = ("smollm2", "qwen", "llama3", "deepseek3")


def chat_model(folder, backend, template="smollm2", **arguments):
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


def answers(model):
    told = []
    for question, system, tools in QUESTIONS:
        (response,) = model.chat([{"role": "user", "content": question}], system, tools)
        told.append((response.response_text, response.prompt_length, response.finish_reason))
    return told


@pytest.fixture(scope="module")
def model(chat_model_folder):
    """On our engine."""
    ours = chat_model(chat_model_folder, "ascend")
    run_sync(ours.engine.model.info())
    yield ours
    ours.engine.close()


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_base_model_says_what_it_says_on_the_huggingface_engine(chat_model_folder, model, template):
    ours = chat_model(chat_model_folder, "ascend", template)
    assert ours.engine.model.engine is model.engine.model.engine
    assert answers(ours) == answers(chat_model(chat_model_folder, "huggingface", template))


def test_so_does_the_model_with_an_adapter(chat_model_folder, model, changed_adapter):
    with_adapter = {"adapter_name_or_path": str(changed_adapter), "finetuning_type": "lora"}
    ours = chat_model(chat_model_folder, "ascend", **with_adapter)
    tuned = answers(ours)
    assert tuned == answers(chat_model(chat_model_folder, "huggingface", **with_adapter))
    assert tuned != answers(model)
    question = [{"role": "user", "content": QUESTIONS[0][0]}]
    assert ours.chat(question, adapter="")[0].response_text == answers(model)[0][0]
    with pytest.raises(RequestError, match="adapter='other' was not given: there are adapter"):
        ours.chat(question, adapter="other")


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
