"""Tools, structured output, thoughts and pictures through ChatAscend: what is asked for, and what comes back."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel
from typing_extensions import TypedDict

from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import RequestError, SettingError
from ascend_adapters.testing import FakeBackend
from langchain_ascend import ChatAscend


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@tool
def time_in(city: str) -> str:
    """The time in a city."""
    return f"noon in {city}"


class Capital(BaseModel):
    """A capital."""

    city: str


class CapitalDict(TypedDict):
    """A capital."""

    city: str


def call(arguments='{"city": "Rome"}', name="weather"):
    return {"tool_calls": [{"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}]}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("any", "required"),
        (True, "required"),
        ("required", "required"),
        ("weather", {"type": "function", "function": {"name": "weather"}}),
        (None, None),
    ],
)
def test_every_tool_choice_of_langchain_has_its_openai_form(given, sent):
    backend = FakeBackend("ok")
    ChatAscend(backend=backend).bind_tools([weather, time_in], tool_choice=given).invoke("Hi")
    (body,) = backend.bodies
    assert body.get("tool_choice") == sent
    assert [tool["function"]["name"] for tool in body["tools"]] == ["weather", "time_in"]


def test_a_tool_choice_that_is_no_tool_is_refused_with_the_tools_there_are():
    with pytest.raises(RequestError, match="tool_choice='rain' is none of the tools: these are weather, time_in"):
        ChatAscend(backend=FakeBackend()).bind_tools([weather, time_in], tool_choice="rain")


def test_calls_come_whole_and_in_pieces():
    model = ChatAscend(backend=FakeBackend(call())).bind_tools([weather])
    whole = model.invoke("Hi")
    assert whole.tool_calls == [{"name": "weather", "args": {"city": "Rome"}, "id": "c1", "type": "tool_call"}]
    chunks = list(model.stream("Hi"))
    assert len([chunk for chunk in chunks if chunk.tool_call_chunks]) > 2
    assert sum(chunks[1:], chunks[0]).tool_calls == whole.tool_calls


def test_a_call_that_the_model_broke_is_an_invalid_call():
    answer = ChatAscend(backend=FakeBackend(call("{city: Rome}"))).invoke("Hi")
    assert not answer.tool_calls
    (invalid,) = answer.invalid_tool_calls
    assert (invalid["name"], invalid["args"]) == ("weather", "{city: Rome}")


def test_results_of_tools_go_back_with_their_calls():
    backend = FakeBackend("done")
    asked = ChatAscend(backend=FakeBackend(call())).invoke("Hi")
    ChatAscend(backend=backend).invoke([HumanMessage("Hi"), asked, weather.invoke(asked.tool_calls[0])])
    _, assistant, result = backend.bodies[0]["messages"]
    assert assistant["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert (result["role"], result["tool_call_id"], result["content"]) == ("tool", "c1", "sunny in Rome")


@pytest.mark.parametrize("schema", [Capital, CapitalDict, Capital.model_json_schema()])
@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
def test_answers_of_a_schema(schema, method):
    text = '{"city": "Rome"}'
    backend = FakeBackend(call(text, "Capital" if schema is not CapitalDict else "CapitalDict"))
    backend = backend if method == "function_calling" else FakeBackend(text)
    model = ChatAscend(backend=backend).with_structured_output(schema, method=method)
    assert model.invoke("Hi") == (Capital(city="Rome") if schema is Capital else {"city": "Rome"})
    (body,) = backend.bodies
    if method == "function_calling":
        assert body["tool_choice"]["function"]["name"] == body["tools"][0]["function"]["name"]
    else:
        assert body["response_format"]["json_schema"]["schema"]["required"] == ["city"]


def test_what_cannot_be_read_comes_with_the_message_if_that_is_asked_for():
    model = ChatAscend(backend=FakeBackend("no JSON")).with_structured_output(Capital, include_raw=True)
    answer = model.invoke("Hi")
    assert (answer["raw"].content, answer["parsed"]) == ("no JSON", None)
    assert answer["parsing_error"] is not None


@pytest.mark.parametrize(("schema", "method"), [(None, "json_schema"), (Capital, "magic")])
def test_a_form_that_cannot_be_is_refused(schema, method):
    with pytest.raises(SettingError, match=r"needs a schema|is unknown: use 'json_schema'"):
        ChatAscend(backend=FakeBackend()).with_structured_output(schema, method=method)


def test_thoughts_have_a_block_of_their_own_also_in_a_stream_and_go_back():
    model = ChatAscend(backend=FakeBackend({"reasoning": "Hm.", "content": "Yes"}))
    answer = model.invoke("Hi")
    blocks = [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "Yes"}]
    assert (answer.content, answer.content_blocks) == ("Yes", blocks)
    chunks = list(model.stream("Hi"))
    assert sum(chunks[1:], chunks[0]).content_blocks == blocks
    backend = FakeBackend("ok")
    ChatAscend(backend=backend).invoke([HumanMessage("Hi"), answer, HumanMessage("Why?")])
    assert backend.bodies[0]["messages"][1] == {"role": "assistant", "content": "Yes", "reasoning": "Hm."}


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        ({"type": "image", "url": "http://x/y.png"}, {"type": "image_url", "image_url": {"url": "http://x/y.png"}}),
        (
            {"type": "image", "base64": "QQ==", "mime_type": "image/png"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}},
        ),
        (
            {"type": "audio", "base64": "QQ==", "mime_type": "audio/wav"},
            {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
        ),
        ({"type": "video", "url": "http://x/y.mp4"}, {"type": "video_url", "video_url": {"url": "http://x/y.mp4"}}),
        (
            {"type": "video", "base64": "QQ==", "mime_type": "video/mp4"},
            {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,QQ=="}},
        ),
    ],
)
def test_pictures_sounds_and_videos_become_parts(part, sent):
    backend = FakeBackend("ok", modalities=("text", "image", "audio", "video"))
    ChatAscend(backend=backend).invoke([HumanMessage([{"type": "text", "text": "What?"}, part])])
    assert backend.bodies[0]["messages"][0]["content"] == [{"type": "text", "text": "What?"}, sent]


@pytest.mark.parametrize("part", [{"type": "smell"}, {"type": "image"}, {"type": "video"}, {"no": "type"}])
def test_content_that_nobody_takes_is_refused(part):
    with pytest.raises(RequestError):
        ChatAscend(backend=FakeBackend()).invoke([HumanMessage([part])])


def test_a_picture_for_a_model_of_texts_is_refused():
    picture = {"type": "image", "url": "http://x/y.png"}
    with pytest.raises(RequestError, match="not a multimodal model"):
        ChatAscend(backend=FakeBackend()).invoke([HumanMessage([picture])])


def test_tokens_are_counted_by_the_model_itself():
    model = ChatAscend(backend=FakeBackend())
    assert model.get_num_tokens("four") == 4
    assert model.get_num_tokens_from_messages([AIMessage("Hi"), HumanMessage("Hello")]) == 5


def test_the_profile_is_the_engines():
    model = ChatAscend(backend=FakeBackend(max_model_len=77, modalities=("text", "image")))
    assert model.profile["structured_output"]
    model.engine_info()
    assert (model.profile["max_input_tokens"], model.profile["image_inputs"]) == (77, True)


def test_answers_of_a_batch_come_as_they_are_done():
    model = ChatAscend(backend=FakeBackend(lambda prompt: prompt, seconds_per_token=0.02))
    order = [place for place, _ in model.batch_as_completed(["x" * 20, "x"])]
    assert order == [1, 0]


def test_a_call_may_name_a_lora_adapter_by_lora():
    backend = FakeBackend("ok")
    run_sync(backend.load_lora("legal", "folder"))
    ChatAscend(backend=backend).invoke("Hi", lora="legal")
    assert backend.bodies[0]["model"] == "legal"


def test_an_agent_uses_a_tool_and_answers():
    from langchain.agents import create_agent

    def reply(prompt):
        return f"It is {prompt}." if prompt.startswith("sunny") else call()

    agent = create_agent(ChatAscend(backend=FakeBackend(reply)), [weather])
    messages = agent.invoke({"messages": [HumanMessage("What is the weather in Rome?")]})["messages"]
    assert [type(message) for message in messages] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert messages[-1].content == "It is sunny in Rome."


@pytest.mark.engine
def test_an_agent_uses_a_tool_on_an_engine(tool_engine):
    from langchain.agents import create_agent
    from langchain.agents.middleware import AgentMiddleware

    class CallsOnce(AgentMiddleware):
        """A model of 135M parameters makes no call that one could rely on, and no end of them: it is told when to."""

        def wrap_model_call(self, request, handler):
            has_result = any(isinstance(message, ToolMessage) for message in request.messages)
            return handler(request.override(tool_choice="none" if has_result else "weather"))

    model = ChatAscend(backend=tool_engine, temperature=0, max_tokens=64)
    agent = create_agent(model, [weather, time_in], middleware=[CallsOnce()])
    _, call, result, answer = agent.invoke({"messages": [HumanMessage("What is the weather in Rome?")]})["messages"]
    (made,) = call.tool_calls
    assert made["name"] == "weather"
    assert result.content == f"sunny in {made['args']['city']}"
    assert answer.content
