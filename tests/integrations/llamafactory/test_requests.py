"""What AscendEngine asks the contract for, with a backend that needs no model."""

import asyncio
import json

import pytest

from ascend_adapters.errors import RequestError
from ascend_adapters.testing import FakeBackend

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def adapter(tmp_path, chat_model_folder):
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": str(chat_model_folder)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").touch()
    return folder


@pytest.fixture
def make(chat_model_folder):
    from llamafactory.hparams import get_infer_args

    from llamafactory_ascend.engine import AscendEngine

    def engine(backend, **arguments):
        given = {"model_name_or_path": str(chat_model_folder), "template": "smollm2", "infer_backend": "ascend"}
        return AscendEngine(*get_infer_args({**given, **arguments}), backend=backend)

    return engine


async def test_the_prompt_is_made_by_the_template_and_ends_as_it_says(make):
    backend = FakeBackend("ok")
    engine = make(backend)
    (response,) = await engine.chat(HI, max_new_tokens=9)
    (body,) = backend.bodies
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face."
    assert engine.tokenizer.decode(body["prompt"]).endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert system in engine.tokenizer.decode(body["prompt"])
    assert (body["stop_token_ids"], body["ignore_eos"], body["max_tokens"]) == ([2], True, 9)
    assert (response.response_text, response.prompt_length) == ("ok", len(body["prompt"]))


async def test_thinking_is_switched_by_the_argument_and_by_the_web_page(make):
    backend = FakeBackend("ok")
    thinking, silent = (make(backend, template="qwen3", enable_thinking=enabled) for enabled in (True, False))
    for engine in (thinking, silent):
        await engine.chat(HI)
    thinking.template.enable_thinking = False  # as the page's check box does
    await thinking.chat(HI)
    prompts = [thinking.tokenizer.decode(body["prompt"]) for body in backend.bodies]
    ends = [prompt.rpartition("<|im_start|>assistant\n")[2] for prompt in prompts]
    assert ends == ["", "<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"]


async def test_the_callers_messages_and_arguments_stay_as_they_were(make):
    messages, arguments = [{"role": "user", "content": "Hi"}], {"temperature": 0.5, "adapter": ""}
    await make(FakeBackend("ok")).chat(messages, **arguments)
    assert messages == HI
    assert arguments == {"temperature": 0.5, "adapter": ""}


async def test_an_adapter_is_loaded_once_by_many_calls_and_again_when_it_was_trained_anew(make, adapter):
    backend = FakeBackend("ok")
    engine = make(backend, adapter_name_or_path=str(adapter), finetuning_type="lora")
    await asyncio.gather(*(engine.chat(HI) for _ in range(8)))
    assert len((await backend.info()).loras) == 1
    (adapter / "adapter_model.safetensors").write_bytes(b"other")
    await engine.chat(HI)
    assert len((await backend.info()).loras) == 2
    assert len({body["model"] for body in backend.bodies}) == 2
    await engine.chat(HI, adapter="")
    assert "model" not in backend.bodies[-1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"images": ["x.png"]}, "This model does not support image input"),
        ({"adapter": "legal"}, "adapter='legal' is none of those given: there is none"),
        ({"num_beams": 3}, "num_beams=3: the engine has no beam search"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(make, call, message):
    with pytest.raises(RequestError, match=message):
        await make(FakeBackend("ok")).chat(HI, **call)


async def test_tools_that_are_no_json_are_an_error_of_their_request_alone(make):
    engine = make(FakeBackend("ok"))
    with pytest.raises(RequestError, match=r"the template cannot write these messages: .*JSON"):
        await engine.chat(HI, tools="{broken")
    assert (await engine.chat(HI))[0].response_text == "ok"


async def test_several_answers_are_not_streamed(make):
    with pytest.raises(RequestError, match="num_return_sequences=2 answers are no one stream"):
        async for _ in make(FakeBackend("ok")).stream_chat(HI, num_return_sequences=2):
            pass
