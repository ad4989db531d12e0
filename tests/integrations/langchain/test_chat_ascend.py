"""ChatAscend translates and decides nothing: what it asks the backend, and what it makes of the answers."""

import asyncio

import pytest
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import ModelError, RequestError, SettingError
from ascend_adapters.testing import FakeBackend
from langchain_ascend import ChatAscend


class CountingBackend(FakeBackend):
    """Knows how many requests were under way at once."""

    in_flight = peak = 0

    async def chat(self, body):
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await super().chat(body)
        finally:
            self.in_flight -= 1


def test_messages_and_settings_become_the_body():
    backend = FakeBackend("ok")
    model = ChatAscend(backend=backend, temperature=0.5, max_tokens=9, seed=3, stop=["x"], top_p=0.9)
    model.invoke([SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("Bye")])
    assert backend.bodies == [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "Bye"},
            ],
            "temperature": 0.5,
            "max_tokens": 9,
            "seed": 3,
            "stop": ["x"],
            "top_p": 0.9,
        }
    ]


def test_arguments_of_a_call_win_over_the_models():
    backend = FakeBackend("ok")
    ChatAscend(backend=backend, temperature=0.5, stop=["x"]).invoke("Hi", stop=["y"], temperature=0, top_k=5)
    (body,) = backend.bodies
    assert (body["stop"], body["temperature"], body["top_k"]) == (["y"], 0, 5)


def test_a_call_may_name_a_lora_adapter():
    backend = FakeBackend("ok")
    run_sync(backend.load_lora("legal", "folder"))
    ChatAscend(backend=backend).bind(model="legal").invoke("Hi")
    assert backend.bodies[0]["model"] == "legal"


def test_the_answer_carries_usage_and_metadata():
    answer = ChatAscend(backend=FakeBackend("Hello")).invoke("Hi", logprobs=True)
    assert answer.content == "Hello"
    assert answer.usage_metadata == {"input_tokens": 2, "output_tokens": 5, "total_tokens": 7}
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == "fake"
    assert len(answer.response_metadata["logprobs"]["content"]) == 5


def test_a_stream_adds_up_to_the_answer():
    model = ChatAscend(backend=FakeBackend("Hello"))
    chunks = list(model.stream("Hi"))
    whole = sum(chunks[1:], chunks[0])
    assert [chunk.content for chunk in chunks if chunk.content] == list("Hello")
    assert whole.content == "Hello"
    assert whole.usage_metadata == model.invoke("Hi").usage_metadata
    assert whole.response_metadata["finish_reason"] == "stop"


async def test_the_asynchronous_forms_give_the_same():
    model = ChatAscend(backend=FakeBackend("Hello"))
    assert (await model.ainvoke("Hi")).content == "Hello"
    assert "".join([chunk.content async for chunk in model.astream("Hi")]) == "Hello"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_batch_reaches_the_engine_at_once(asynchronous):
    backend = CountingBackend(seconds_per_token=0.005)
    model = ChatAscend(backend=backend)
    inputs = [f"question {i}" for i in range(64)]
    answers = asyncio.run(model.abatch(inputs)) if asynchronous else model.batch(inputs)
    assert [answer.content for answer in answers] == [f"You said: question {i}" for i in range(64)]
    assert backend.peak == 64


def test_a_batch_may_return_its_errors():
    answers = ChatAscend(backend=FakeBackend(max_model_len=20)).batch(["short", "x" * 30], return_exceptions=True)
    assert answers[0].content.startswith("You said")
    assert isinstance(answers[1], RequestError)


def test_several_answers_are_not_streamed_into_one():
    with pytest.raises(RequestError, match="n > 1 answers cannot be streamed"):
        list(ChatAscend(backend=FakeBackend("Hello")).stream("Hi", n=2))


def test_it_takes_its_place_in_a_chain():
    prompt = ChatPromptTemplate.from_template("Say {word}")
    chain = prompt | ChatAscend(backend=FakeBackend()) | StrOutputParser()
    assert chain.invoke({"word": "yes"}) == "You said: Say yes"
    assert chain.batch([{"word": "a"}, {"word": "b"}]) == ["You said: Say a", "You said: Say b"]
    assert "".join(chain.stream({"word": "yes"})) == "You said: Say yes"


def test_engine_settings_are_constructor_arguments():
    model = ChatAscend(model="smollm2-135m-instruct", dtype="float32", max_model_len=512)
    assert model.engine_settings == {"dtype": "float32", "max_model_len": 512}
    assert model._backend.engine.settings.as_dict() == {"dtype": "float32", "max_model_len": 512}


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
        ChatAscend(**arguments)


def test_an_unknown_argument_of_a_call_is_named_with_the_remedy():
    with pytest.raises(RequestError, match=r"unknown keyword 'temprature'.*did you mean 'temperature'"):
        ChatAscend(backend=FakeBackend()).invoke("Hi", temprature=1)


def test_tracing_knows_provider_and_model():
    model = ChatAscend(model="smollm2-135m-instruct", temperature=0.1)
    params = model._get_ls_params()
    assert params["ls_provider"] == "ascend"
    assert params["ls_model_name"] == "smollm2-135m-instruct"
    assert params["ls_temperature"] == 0.1


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_a_model_is_dumped_without_its_key_and_loaded_again(monkeypatch):
    model = ChatAscend(base_url="http://127.0.0.1:8000", api_key="my-own-key", temperature=0.5, max_tokens=9)
    dumped = dumps(model)
    assert "my-own-key" not in dumped
    monkeypatch.setenv("ASCEND_API_KEY", "my-own-key")
    loaded = loads(dumped, allowed_objects=[ChatAscend], valid_namespaces=["langchain_ascend"], secrets_from_env=True)
    assert dumps(loaded) == dumped
    assert loaded.api_key == model.api_key


def test_the_key_comes_from_the_environment_for_a_server_only(monkeypatch):
    monkeypatch.setenv("ASCEND_API_KEY", "my-own-key")
    assert ChatAscend(base_url="http://127.0.0.1:8000").api_key.get_secret_value() == "my-own-key"
    assert ChatAscend(model="smollm2-135m-instruct").api_key is None
