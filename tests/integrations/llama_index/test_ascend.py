"""Ascend translates and decides nothing: what it asks the backend, and what it makes of the answers."""

import asyncio
import json
import pickle
from functools import cache

import pytest
from pydantic import BaseModel

from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import ModelError, RequestError, SettingError
from ascend_adapters.testing import FakeBackend

PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(16)
MEDIA = ("text", "image", "audio", "video")


def ascend(**settings):
    from llama_index.llms.ascend import Ascend

    return Ascend(**settings)


def chat_message(content=None, **fields):
    from llama_index.core.base.llms.types import ChatMessage

    return ChatMessage(content=content, **fields)


def prompt_template(text):
    from llama_index.core.prompts import PromptTemplate

    return PromptTemplate(text)


def tools_of(*functions):
    from llama_index.core.tools import FunctionTool

    return [FunctionTool.from_defaults(function) for function in functions]


class SlowBackend(FakeBackend):
    """Knows how many requests were under way at once, and whether a stream was closed."""

    in_flight = peak = closed = 0

    async def chat(self, body):
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await super().chat(body)
        finally:
            self.in_flight -= 1

    async def chat_stream(self, body):
        try:
            async for chunk in super().chat_stream(body):
                yield chunk
        finally:
            self.closed += 1


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


# Of workflows 2.26, which looks through all attributes of an agent, also those that pydantic has deprecated.
of_workflows = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")


def call_of(name, arguments, call_id="call-1"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def asked(*messages, **kwargs):
    """The body that `messages` become."""
    backend = FakeBackend("ok", modalities=MEDIA)
    ascend(backend=backend).chat([*messages], **kwargs)
    return backend.bodies[0]


def test_messages_and_settings_become_the_body():
    from llama_index.core.base.llms.types import TextBlock

    backend = FakeBackend("ok")
    llm = ascend(
        backend=backend, temperature=0.5, max_tokens=9, seed=3, stop=["x"], top_p=0.9, additional_kwargs={"top_k": 5}
    )
    llm.chat(
        [
            chat_message(role="system", content="Be brief."),
            chat_message(content="Hi"),
            chat_message(role="assistant", content="Hello"),
            chat_message(role="user", blocks=[TextBlock(text="a"), TextBlock(text="b")]),
        ]
    )
    assert backend.bodies == [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "a\nb"},
            ],
            "temperature": 0.5,
            "max_tokens": 9,
            "stop": ["x"],
            "seed": 3,
            "top_p": 0.9,
            "top_k": 5,
        }
    ]


def test_arguments_of_a_call_win_over_the_models():
    backend = FakeBackend("ok")
    ascend(backend=backend, temperature=0.5, stop=["x"]).complete("Hi", stop=["y"], temperature=0, top_k=5)
    (body,) = backend.bodies
    assert (body["stop"], body["temperature"], body["top_k"]) == (["y"], 0, 5)


@pytest.mark.parametrize("settings", [{}, {"lora": "another"}])
def test_a_call_may_name_a_lora_adapter(settings):
    backend = FakeBackend("ok")
    run_sync(backend.load_lora("legal", "folder"))
    ascend(backend=backend, **settings).chat([chat_message("Hi")], lora="legal")
    assert backend.bodies[0]["model"] == "legal"
    assert "lora" not in backend.bodies[0]


def test_a_chat_model_is_asked_a_prompt_and_continues_a_formatted_one():
    backend = FakeBackend("ok")
    llm = ascend(backend=backend)
    llm.complete("Hi")
    llm.complete("Once upon", formatted=True)
    assert backend.bodies[0]["messages"] == [{"role": "user", "content": "Hi"}]
    assert backend.bodies[1] == {"prompt": "Once upon"}


def test_a_model_that_only_completes_is_asked_to_complete():
    backend = FakeBackend("ok", tasks=("complete",))
    llm = ascend(backend=backend, completion_to_prompt=lambda prompt: f"Q: {prompt} A:")
    assert not llm.metadata.is_chat_model
    assert not llm.metadata.is_function_calling_model
    assert list(llm.stream(prompt_template("Hi"))) == ["o", "k", ""]
    llm.complete("Hi", logprobs=True, top_logprobs=3)
    assert backend.bodies[1] == {"prompt": "Q: Hi A:", "logprobs": 3}


def test_the_metadata_is_the_engines():
    llm = ascend(backend=FakeBackend(model="tiny", max_model_len=512), max_tokens=99)
    assert (llm.metadata.model_name, llm.metadata.context_window, llm.metadata.num_output) == ("tiny", 512, 99)
    assert llm.metadata.is_chat_model
    assert llm.metadata.is_function_calling_model
    assert not ascend(backend=FakeBackend(), is_function_calling_model=False).metadata.is_function_calling_model


def test_the_tokenizer_is_the_models():
    assert ascend(backend=FakeBackend()).tokenizer("ab") == [97, 98]


def test_the_answer_carries_usage_and_logprobs():
    response = ascend(backend=FakeBackend("Hello"), logprobs=True).chat([chat_message("Hi")])
    assert response.message.content == "Hello"
    assert response.raw["usage"] == {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}
    assert response.additional_kwargs["finish_reason"] == "stop"
    assert [[token.token for token in likeliest] for likeliest in response.logprobs] == [[c] for c in "Hello"]


def test_the_last_response_of_a_stream_carries_the_usage():
    responses = list(ascend(backend=FakeBackend("Hello")).stream_chat([chat_message("Hi")]))
    assert [response.delta for response in responses] == [*"Hello", ""]
    assert [response.message.content for response in responses][:2] == ["H", "He"]
    assert responses[-1].additional_kwargs["total_tokens"] == 7
    assert responses[-1].additional_kwargs["finish_reason"] == "stop"


def test_reasoning_has_its_own_block():
    from llama_index.core.base.llms.types import TextBlock, ThinkingBlock

    llm = ascend(backend=FakeBackend({"content": "4", "reasoning": "2+2"}))
    blocks = [ThinkingBlock(content="2+2"), TextBlock(text="4")]
    assert llm.chat([chat_message("Hi")]).message.blocks == blocks
    *_, last = responses = list(llm.stream_chat([chat_message("Hi")]))
    assert last.message.blocks == blocks
    assert "".join(response.additional_kwargs.get("thinking_delta", "") for response in responses) == "2+2"
    assert asked(chat_message(role="assistant", blocks=blocks))["messages"] == [
        {"role": "assistant", "content": "4", "reasoning": "2+2"}
    ]


def test_media_become_parts():
    from llama_index.core.base.llms.types import AudioBlock, CacheControl, CachePoint, ImageBlock, TextBlock, VideoBlock

    (message,) = asked(
        chat_message(
            blocks=[
                TextBlock(text="What is this?"),
                ImageBlock(image=PIXEL, detail="low"),
                ImageBlock(url="https://host/a.png"),
                AudioBlock(audio=b"RIFF\x00\x01WAVE!!", format="wav"),
                AudioBlock(url="https://host/a.wav"),
                VideoBlock(url="https://host/a.mp4"),
                CachePoint(cache_control=CacheControl(type="ephemeral")),
            ]
        )
    )["messages"]
    text, image, image_url, audio, audio_url, video = message["content"]
    assert text == {"type": "text", "text": "What is this?"}
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBORw0K")
    assert image["image_url"]["detail"] == "low"
    assert image_url == {"type": "image_url", "image_url": {"url": "https://host/a.png"}}
    assert audio == {"type": "input_audio", "input_audio": {"data": "UklGRgABV0FWRSEh", "format": "wav"}}
    assert audio_url == {"type": "audio_url", "audio_url": {"url": "https://host/a.wav"}}
    assert video == {"type": "video_url", "video_url": {"url": "https://host/a.mp4"}}


def test_an_image_may_be_a_file_or_an_open_one(tmp_path):
    from llama_index.core.base.llms.types import ImageBlock

    (tmp_path / "a.png").write_bytes(PIXEL)
    with (tmp_path / "a.png").open("rb") as file:
        blocks = [ImageBlock(path=tmp_path / "a.png"), ImageBlock(image=file, image_mimetype="image/png")]
        (message,) = asked(chat_message(blocks=blocks))["messages"]
    first, second = message["content"]
    assert first == second


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            ("DocumentBlock", {"data": b"%PDF-1.4"}),
            "DocumentBlock, which no model here takes: read it into text first",
        ),
        (("VideoBlock", {"url": "https://host/a.mp4", "fps": 2}), "VideoBlock.fps=2.*Leave both out"),
    ],
)
def test_a_block_that_no_model_takes_is_refused(block, message):
    from llama_index.core.base.llms import types

    kind, fields = block
    made = getattr(types, kind)(**fields)
    with pytest.raises(RequestError, match=message):
        asked(chat_message(blocks=[made]))


def test_a_picture_for_a_model_of_texts_is_refused():
    from llama_index.core.base.llms.types import ImageBlock

    with pytest.raises(RequestError, match="image"):
        ascend(backend=FakeBackend("ok")).chat([chat_message(blocks=[ImageBlock(image=PIXEL)])])


def test_several_answers_do_not_fit_a_response():
    llm = ascend(backend=FakeBackend("Hello"))
    for ask in (llm.chat, lambda *args, **kwargs: list(llm.stream_chat(*args, **kwargs))):
        with pytest.raises(RequestError, match="n > 1 answers do not fit"):
            ask([chat_message("Hi")], n=2)


@pytest.mark.parametrize(
    ("tools", "arguments", "expected"),
    [
        ([add], {}, None),
        ([add], {"tool_required": True}, "add"),
        ([add], {"tool_required": True, "allow_parallel_tool_calls": True}, "required"),
        ([add, multiply], {"tool_required": True}, "required"),
        ([add, multiply], {"tool_choice": "any"}, "required"),
        ([add, multiply], {"tool_choice": "none"}, "none"),
        ([add, multiply], {"tool_choice": "multiply", "tool_required": True}, "multiply"),
        ([add], {"tool_choice": {"type": "function", "function": {"name": "add"}}}, "add"),
    ],
)
def test_tools_and_the_choice_of_them_become_the_body(tools, arguments, expected):
    backend = FakeBackend("ok")
    tools = tools_of(*tools)
    ascend(backend=backend).chat_with_tools(tools, "Hi", chat_history=[chat_message("Before")], **arguments)
    (body,) = backend.bodies
    assert [tool["function"]["name"] for tool in body["tools"]] == [tool.metadata.name for tool in tools]
    assert [message["content"] for message in body["messages"]] == ["Before", "Hi"]
    assert body["parallel_tool_calls"] == arguments.get("allow_parallel_tool_calls", False)
    choice = body.get("tool_choice")
    assert (choice["function"]["name"] if isinstance(choice, dict) else choice) == expected


def test_no_tools_leave_nothing_in_the_body():
    backend = FakeBackend("ok")
    ascend(backend=backend).chat_with_tools([], "Hi", tool_required=True)
    assert set(backend.bodies[0]) == {"messages"}


def test_an_unknown_tool_is_named_with_the_remedy():
    with pytest.raises(RequestError, match="tool_choice='divide' is none of the tools: these are add"):
        ascend(backend=FakeBackend()).chat_with_tools(tools_of(add), "Hi", tool_choice="divide")


def test_parallel_calls_come_back_in_order_and_go_out_again():
    calls = [call_of("add", '{"a": 1, "b": 2}'), call_of("multiply", '{"a": 3, "b": 4}', "call-2")]
    llm = ascend(backend=FakeBackend({"tool_calls": calls}))
    *_, streamed = llm.stream_chat_with_tools(tools_of(add, multiply), "Hi", allow_parallel_tool_calls=True)
    for response in (llm.chat_with_tools(tools_of(add, multiply), "Hi", allow_parallel_tool_calls=True), streamed):
        assert [
            (call.tool_id, call.tool_name, call.tool_kwargs) for call in llm.get_tool_calls_from_response(response)
        ] == [("call-1", "add", {"a": 1, "b": 2}), ("call-2", "multiply", {"a": 3, "b": 4})]
        result = chat_message(role="tool", content="3", additional_kwargs={"tool_call_id": "call-1"})
        assert asked(response.message, result)["messages"] == [
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "content": "3", "tool_call_id": "call-1"},
        ]


def test_a_call_that_still_streams_tells_what_is_there():
    llm = ascend(backend=FakeBackend({"tool_calls": [call_of("add", '{"a": 12, "b": 3}')]}))
    responses = llm.stream_chat_with_tools(tools_of(add), "Hi")
    seen = [llm.get_tool_calls_from_response(response)[0].tool_kwargs for response in responses]
    assert {} in seen
    assert {"a": 12} in seen
    assert seen[-1] == {"a": 12, "b": 3}


@pytest.mark.parametrize("arguments", ["{'a': 1}", "[1, 2]"])
def test_a_call_that_the_model_broke_is_an_error(arguments):
    llm = ascend(backend=FakeBackend({"tool_calls": [call_of("add", arguments)]}))
    *_, streamed = llm.stream_chat_with_tools(tools_of(add), "Hi")
    for response in (llm.chat_with_tools(tools_of(add), "Hi"), streamed):
        with pytest.raises(RequestError, match=r"the model called add with .* no JSON object: give tool_required=True"):
            llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)


def test_calls_as_older_adapters_wrote_them_go_out_too():
    calls = [call_of("add", "{}")]
    message = chat_message(role="assistant", content="", additional_kwargs={"tool_calls": calls})
    assert asked(message)["messages"] == [{"role": "assistant", "content": None, "tool_calls": calls}]


def test_a_call_of_ones_own_making_is_read():
    from llama_index.core.base.llms.types import ChatResponse, ToolCallBlock

    message = chat_message(role="assistant", blocks=[ToolCallBlock(tool_name="add", tool_kwargs={"a": 1})])
    (call,) = ascend(backend=FakeBackend()).get_tool_calls_from_response(ChatResponse(message=message))
    assert call.tool_kwargs == {"a": 1}


class City(BaseModel):
    """A city."""

    name: str


@cache
def capital():
    return prompt_template("The capital of {country}?")


def test_structured_output_asks_for_the_schema_by_grammar_and_in_the_prompt():
    backend = FakeBackend('{"name": "Paris"}')
    assert ascend(backend=backend).structured_predict(City, capital(), {"seed": 1}, country="France") == City(
        name="Paris"
    )
    (body,) = backend.bodies
    schema = City.model_json_schema()
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "City", "schema": schema}}
    assert body["messages"][0]["content"].startswith("The capital of France?")
    assert json.dumps(schema) in body["messages"][0]["content"]
    assert body["seed"] == 1


def test_structured_output_by_a_tool_is_cores():
    from llama_index.core.types import PydanticProgramMode

    backend = FakeBackend({"tool_calls": [call_of("City", '{"name": "Paris"}')]})
    llm = ascend(backend=backend, pydantic_program_mode=PydanticProgramMode.FUNCTION)
    assert llm.structured_predict(City, capital(), country="France") == City(name="Paris")
    assert backend.bodies[0]["tool_choice"] == {"type": "function", "function": {"name": "City"}}
    assert list(llm.stream_structured_predict(City, capital(), country="France"))[-1] == City(name="Paris")


def test_an_object_that_was_cut_is_an_error():
    llm = ascend(backend=FakeBackend('{"name": "Paris"}'), max_tokens=9)
    with pytest.raises(RequestError, match=r"cut at max_tokens=9.*its JSON.*Raise max_tokens"):
        llm.structured_predict(City, capital(), country="France")


async def test_asynchronous_calls_reach_the_engine_at_once():
    backend = SlowBackend(seconds_per_token=0.005)
    llm = ascend(backend=backend)
    responses = await asyncio.gather(*[llm.acomplete(f"question {i}") for i in range(64)])
    assert [response.text for response in responses] == [f"You said: question {i}" for i in range(64)]
    assert backend.peak == 64


async def test_leaving_a_stream_closes_it():
    backend = SlowBackend("Hello")
    llm = ascend(backend=backend)
    stream = llm.stream_chat([chat_message("Hi")])
    next(stream)
    stream.close()
    assert backend.closed == 1
    stream = await llm.astream_chat([chat_message("Hi")])
    await anext(stream)
    await stream.aclose()
    del stream  # core's wrapper leaves the closing of what it wraps to the garbage collector
    await asyncio.sleep(0.05)
    assert backend.closed == 2


def test_callbacks_count_the_tokens_of_the_engine():
    from llama_index.core.callbacks import CallbackManager, TokenCountingHandler

    counter = TokenCountingHandler(tokenizer=str.split)
    llm = ascend(backend=FakeBackend("Hello"), callback_manager=CallbackManager([counter]))
    llm.complete("Hi")
    list(llm.stream_chat([chat_message("Hi")]))
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (4, 10)


@of_workflows
async def test_a_function_agent_runs_a_loop_with_a_tool():
    from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult

    def reply(prompt):
        if prompt == "What is 2 + 3?":
            return {"tool_calls": [call_of("add", '{"a": 2, "b": 3}')]}
        return f"It is {prompt}."

    backend = FakeBackend(reply)
    agent = FunctionAgent(tools=tools_of(add), llm=ascend(backend=backend), system_prompt="Use the tools.")
    handler = agent.run("What is 2 + 3?")
    results = [event.tool_output.raw_output async for event in handler.stream_events() if type(event) is ToolCallResult]
    assert results == [5]
    assert str(await handler) == "It is 5."
    assert [message["role"] for message in backend.bodies[-1]["messages"]] == ["system", "user", "assistant", "tool"]


@pytest.mark.engine
@of_workflows
async def test_a_function_agent_runs_a_loop_on_an_engine(tool_engine):
    """Its first call is forced: a model of 135M parameters makes none by itself that one could rely on."""
    from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult

    llm = ascend(backend=tool_engine, temperature=0, max_tokens=64)
    agent = FunctionAgent(tools=tools_of(add), llm=llm, initial_tool_choice="add", allow_parallel_tool_calls=False)
    handler = agent.run("What is 2 + 3?", max_iterations=4)
    results = [event async for event in handler.stream_events() if type(event) is ToolCallResult]
    assert results[0].tool_name == "add"
    assert results[0].tool_output.raw_output == sum(results[0].tool_kwargs.values())
    assert str(await handler)


def adds_once(llm):
    """A workflow of one's own."""
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.llms.llm import ToolSelection
    from llama_index.core.workflow import Event, StartEvent, StopEvent, Workflow, step

    (add_tool,) = tools_of(add)

    class Called(Event):
        """The model has called a tool."""

        history: list[ChatMessage]
        call: ToolSelection

    class AddsOnce(Workflow):
        """A tool loop of one's own: a call, its result, an answer."""

        def __init__(self, llm):
            super().__init__(timeout=60)
            self.llm = llm

        @step
        async def ask(self, event: StartEvent) -> Called:
            history = [chat_message(content=event.question)]
            response = await self.llm.achat_with_tools([add_tool], chat_history=history, tool_required=True)
            (call,) = self.llm.get_tool_calls_from_response(response)
            return Called(history=[*history, response.message], call=call)

        @step
        async def answer(self, event: Called) -> StopEvent:
            result = await add_tool.acall(**event.call.tool_kwargs)
            told = chat_message(
                role="tool", content=str(result), additional_kwargs={"tool_call_id": event.call.tool_id}
            )
            response = await self.llm.achat([*event.history, told])
            return StopEvent(result=(event.call.tool_kwargs, result.raw_output, response.message.content))

    return AddsOnce(llm)


@pytest.mark.engine
@of_workflows
async def test_a_workflow_runs_a_loop_with_a_tool_on_an_engine(tool_engine):
    llm = ascend(backend=tool_engine, temperature=0, max_tokens=64)
    arguments, result, answer = await adds_once(llm).run(question="Use the tool add to add 2 and 3.")
    assert result == arguments["a"] + arguments["b"]
    assert answer


def test_engine_settings_are_constructor_arguments():
    llm = ascend(model="smollm2-135m-instruct", dtype="float32", max_model_len=512)
    assert llm.engine_settings == {"dtype": "float32", "max_model_len": 512}
    assert llm._backend.engine.settings.as_dict() == {"dtype": "float32", "max_model_len": 512}


def test_it_is_written_down_and_pickled_without_its_key_in_the_text():
    from llama_index.llms.ascend import Ascend

    llm = ascend(base_url="http://127.0.0.1:1", api_key="secret", temperature=0.5)
    assert "secret" not in llm.to_json()
    assert Ascend.from_json(llm.to_json()).temperature == 0.5
    copy = pickle.loads(pickle.dumps(llm))
    assert (copy.base_url, copy.api_key.get_secret_value()) == ("http://127.0.0.1:1", "secret")
    embedded = ascend(model="smollm2-135m-instruct", dtype="float32")
    assert pickle.loads(pickle.dumps(embedded))._backend.engine is embedded._backend.engine


def test_events_start_no_engine_and_tell_no_key():
    llm = ascend(base_url="http://127.0.0.1:1", api_key="secret", temperature=0.5)
    assert llm.to_payload() == {"class_name": "Ascend", "model_name": "http://127.0.0.1:1", "temperature": 0.5}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "gpt-9"}, ModelError, "'gpt-9' is unknown: give one of"),
        ({"model": "smollm2-135m-instruct", "max_mode_len": 3}, SettingError, "did you mean 'max_model_len'"),
        ({"model": "m", "base_url": "http://h:1", "dtype": "float32"}, SettingError, "dtype: settings of an embedded"),
        ({}, SettingError, "neither model nor base_url is given"),
        ({"model": "smollm2-135m-instruct", "api_key": "k"}, SettingError, "api_key is for a server"),
        ({"backend": FakeBackend(), "temprature": 0.5, "model": "m"}, SettingError, "model, temprature: of no effect"),
    ],
)
def test_a_bad_argument_is_named_with_the_remedy(arguments, error, message):
    with pytest.raises(error, match=message):
        ascend(**arguments)


def test_an_unknown_argument_of_a_call_is_named_with_the_remedy():
    with pytest.raises(RequestError, match=r"unknown keyword 'temprature'.*did you mean 'temperature'"):
        ascend(backend=FakeBackend()).complete("Hi", temprature=1)
