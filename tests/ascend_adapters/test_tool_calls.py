"""Which parser reads a model's calls of tools, and that a call which was cut is an error."""

import json

import pytest

from ascend_adapters.errors import RequestError
from ascend_adapters.testing import FakeBackend
from ascend_adapters.tool_calls import tool_call_settings

ASK = {"messages": [{"role": "user", "content": "What is the weather in Rome?"}]}
FORCED = {**ASK, "tool_choice": "required", "max_tokens": 9}


def call(arguments):
    return {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}]}


async def streamed(backend, body):
    return [chunk async for chunk in backend.chat_stream(body)]


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        ("{{ '<tool_call>' }}", "hermes"),
        ("{{ '<tool_call><function=' }}", "qwen3_coder"),
        ("{{ '[TOOL_CALLS]' }}", "mistral"),
        ("{{ messages }}", "hermes"),
    ],
)
@pytest.mark.parametrize("in_config", [False, True])
def test_the_parser_is_read_off_the_chat_template(tmp_path, template, parser, in_config):
    if in_config:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    else:
        (tmp_path / "chat_template.jinja").write_text(template)
    assert tool_call_settings(str(tmp_path)) == {"enable_auto_tool_choice": True, "tool_call_parser": parser}


def test_a_model_without_a_chat_template_has_no_tools(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert tool_call_settings(str(tmp_path)) == {}


@pytest.mark.parametrize("arguments", ["", '{"city": ', '{"city": "Ro', '{"city": "Rome"'])
async def test_a_call_that_was_cut_is_an_error(arguments):
    backend = FakeBackend(call(arguments))
    with pytest.raises(RequestError, match=r"cut at max_tokens=9.*weather.*Raise max_tokens"):
        await backend.chat(FORCED)
    with pytest.raises(RequestError, match=r"cut at max_tokens=9.*weather.*Raise max_tokens"):
        await streamed(backend, FORCED)


@pytest.mark.parametrize("arguments", ["{}", '{"city": "Rome"}', "{city: Rome}"])
async def test_a_whole_call_comes_as_the_model_made_it(arguments):
    backend = FakeBackend(call(arguments))
    answer = await backend.chat(FORCED)
    assert answer["choices"][0]["message"]["tool_calls"] == call(arguments)["tool_calls"]
    chunks = await streamed(backend, FORCED)
    pieces = [piece for chunk in chunks for c in chunk["choices"] for piece in c["delta"].get("tool_calls", [])]
    assert "".join(piece["function"]["arguments"] for piece in pieces) == arguments
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
