"""A call of a tool, or JSON of a given form, that max_tokens cut is an error, whole and streamed."""

import pytest

from ascend_adapters.errors import RequestError
from ascend_adapters.testing import FakeBackend

ASK = {"messages": [{"role": "user", "content": "What is the weather in Rome?"}]}
FORCED = {**ASK, "tool_choice": "required", "max_tokens": 9}


def call(arguments):
    return {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}]}


async def streamed(backend, body):
    return [chunk async for chunk in backend.chat_stream(body)]


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


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
@pytest.mark.parametrize("json", ['{"city": "Rome"}', '{"city": ["Rome", '])
async def test_json_that_was_cut_is_an_error(kind, json):
    backend, asked = FakeBackend(json), {**ASK, "response_format": {"type": kind}}
    with pytest.raises(RequestError, match=r"cut at max_tokens=9.*its JSON, which begins with '\{\"city\": '"):
        await backend.chat({**asked, "max_tokens": 9})
    with pytest.raises(RequestError, match=r"cut at max_tokens=9.*its JSON"):
        await streamed(backend, {**asked, "max_tokens": 9})


async def test_json_that_ends_with_the_last_token_is_whole():
    backend, json = FakeBackend('{"a": 1}'), {"response_format": {"type": "json_object"}}
    answer = await backend.chat({**ASK, **json, "max_tokens": 8})
    assert answer["choices"][0]["message"]["content"] == '{"a": 1}'
    assert len(await streamed(backend, {**ASK, **json, "max_tokens": 8})) > 8


async def test_a_text_may_be_cut_anywhere():
    answer = await FakeBackend('{"city": "Rome"}').chat({**ASK, "max_tokens": 9})
    assert answer["choices"][0]["finish_reason"] == "length"
