"""What any LLM or embedding class of LlamaIndex must do: the ecosystem has no standard suite, so this is a small one.

A subclass named Test... gives a factory:

    class TestMine(LLMConformance):
        def make(self, **settings): return MyLLM(**settings)

Every case asks questions that a model of any size can be held to: by most likely tokens, by a forced call, by a schema.
"""

import asyncio
import json
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

if TYPE_CHECKING:  # core takes a second to import: not while tests are collected
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.base.llms.types import ChatMessage, ChatResponse
    from llama_index.core.llms.function_calling import FunctionCallingLLM
    from llama_index.core.llms.llm import LLM, ToolSelection
    from llama_index.core.prompts import PromptTemplate
    from llama_index.core.tools import FunctionTool

QUESTION = "What is the capital of France?"


def chat_message(content: str, **fields: Any) -> "ChatMessage":
    from llama_index.core.base.llms.types import ChatMessage

    return ChatMessage(content=content, **fields)


@cache
def messages() -> "list[ChatMessage]":
    return [chat_message("Be brief.", role="system"), chat_message(QUESTION)]


def prompt_template(text: str) -> "PromptTemplate":
    from llama_index.core.prompts import PromptTemplate

    return PromptTemplate(text)


@pytest.fixture
def events():
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler

    class Recorder(BaseEventHandler):
        """Keeps the names of the events that are told."""

        names: list[str]

        def handle(self, event: Any, **kwargs: Any) -> None:
            self.names.append(event.class_name())

    dispatcher, recorder = get_dispatcher(), Recorder(names=[])
    dispatcher.add_event_handler(recorder)
    yield recorder.names
    dispatcher.event_handlers.remove(recorder)


def answered(response: "ChatResponse") -> str:
    from llama_index.core.base.llms.types import MessageRole

    assert response.message.role == MessageRole.ASSISTANT
    return response.message.content or ""


class LLMConformance:
    """Of every LLM."""

    def make(self, **settings: Any) -> "LLM":
        """A model that always takes the most likely token, and stops after 16."""
        raise NotImplementedError

    @pytest.fixture
    def llm(self) -> "LLM":
        return self.make()

    def test_it_answers_a_prompt(self, llm):
        assert llm.complete(QUESTION).text

    def test_it_answers_messages(self, llm):
        assert answered(llm.chat(messages()))

    async def test_the_asynchronous_forms_answer_the_same(self, llm):
        assert (await llm.acomplete(QUESTION)).text == llm.complete(QUESTION).text
        assert answered(await llm.achat(messages())) == answered(llm.chat(messages()))

    def test_a_streamed_completion_adds_up_to_the_answer(self, llm):
        responses = list(llm.stream_complete(QUESTION))
        assert "".join(response.delta or "" for response in responses) == responses[-1].text
        assert responses[-1].text == llm.complete(QUESTION).text

    def test_a_streamed_chat_adds_up_to_the_answer(self, llm):
        responses = list(llm.stream_chat(messages()))
        assert len(responses) > 1
        assert "".join(response.delta or "" for response in responses) == answered(responses[-1])
        assert answered(responses[-1]) == answered(llm.chat(messages()))

    async def test_asynchronous_streams_add_up_to_the_answer(self, llm):
        texts = [response.text async for response in await llm.astream_complete(QUESTION)]
        assert texts[-1] == llm.complete(QUESTION).text
        chats = [answered(response) async for response in await llm.astream_chat(messages())]
        assert chats[-1] == answered(llm.chat(messages()))

    def test_a_stream_may_be_left(self, llm):
        stream = llm.stream_chat(messages())
        next(stream)
        stream.close()
        assert answered(llm.chat(messages()))

    async def test_an_asynchronous_stream_may_be_left(self, llm):
        stream = await llm.astream_chat(messages())
        await anext(stream)
        await stream.aclose()
        assert answered(await llm.achat(messages()))

    async def test_many_questions_at_once_get_each_their_answer(self, llm):
        responses = await asyncio.gather(*[llm.achat(messages()) for _ in range(8)])
        assert all(answered(response) for response in responses)

    def test_a_prompt_template_is_predicted_and_streamed(self, llm):
        prompt = prompt_template("What is the capital of {country}?")
        assert "".join(llm.stream(prompt, country="France")) == llm.predict(prompt, country="France")

    def test_the_metadata_leaves_room_for_an_answer(self, llm):
        assert 0 < llm.metadata.num_output < llm.metadata.context_window
        assert llm.metadata.model_name

    def test_events_tell_of_a_chat(self, llm, events):
        llm.chat(messages())
        list(llm.stream_chat(messages()))
        assert events.count("LLMChatStartEvent") == events.count("LLMChatEndEvent") == 2
        assert "LLMChatInProgressEvent" in events

    async def test_events_tell_of_an_asynchronous_completion(self, llm, events):
        await llm.acomplete(QUESTION)
        assert {"LLMCompletionStartEvent", "LLMCompletionEndEvent"} <= set(events)

    def test_it_can_be_written_down(self, llm):
        assert json.loads(llm.to_json())["class_name"] == llm.class_name()


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@cache
def add_tool() -> "FunctionTool":
    from llama_index.core.tools import FunctionTool

    return FunctionTool.from_defaults(add)


ASK_FOR_A_CALL = "Use the tool add to add 2 and 3."


def check_calls(calls: "Sequence[ToolSelection]") -> None:
    (call,) = calls
    assert call.tool_name == "add"
    assert set(call.tool_kwargs) == {"a", "b"}
    assert all(isinstance(value, int) for value in call.tool_kwargs.values())


class ToolConformance:
    """Of every FunctionCallingLLM."""

    def make(self, **settings: Any) -> "FunctionCallingLLM":
        """A model that always takes the most likely token."""
        raise NotImplementedError

    @pytest.fixture
    def llm(self) -> "FunctionCallingLLM":
        return self.make()

    def test_a_required_tool_is_called(self, llm):
        response = llm.chat_with_tools([add_tool()], user_msg=ASK_FOR_A_CALL, tool_required=True)
        check_calls(llm.get_tool_calls_from_response(response))

    async def test_a_required_tool_is_called_asynchronously(self, llm):
        response = await llm.achat_with_tools([add_tool()], user_msg=ASK_FOR_A_CALL, tool_required=True)
        check_calls(llm.get_tool_calls_from_response(response))

    def test_a_streamed_call_adds_up(self, llm):
        responses = list(llm.stream_chat_with_tools([add_tool()], user_msg=ASK_FOR_A_CALL, tool_required=True))
        for response in responses:  # also while it is incomplete
            llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        check_calls(llm.get_tool_calls_from_response(responses[-1]))

    async def test_an_asynchronously_streamed_call_adds_up(self, llm):
        stream = await llm.astream_chat_with_tools([add_tool()], user_msg=ASK_FOR_A_CALL, tool_required=True)
        responses = [response async for response in stream]
        check_calls(llm.get_tool_calls_from_response(responses[-1]))

    def test_a_tool_is_predicted_and_called(self, llm):
        result = llm.predict_and_call([add_tool()], user_msg=ASK_FOR_A_CALL, tool_required=True)
        (output,) = result.sources
        assert output.raw_output == sum(output.raw_input["kwargs"].values())

    def test_the_result_of_a_call_can_be_sent_back(self, llm):
        response = llm.chat_with_tools([add_tool()], user_msg=ASK_FOR_A_CALL, tool_required=True)
        (call,) = llm.get_tool_calls_from_response(response)
        result = chat_message("5", role="tool", additional_kwargs={"tool_call_id": call.tool_id})
        history = [chat_message(ASK_FOR_A_CALL), response.message, result]
        assert answered(llm.chat([*history, chat_message(QUESTION)]))

    def test_no_call_is_an_error_unless_it_may_be(self, llm):
        response = llm.chat(messages())
        with pytest.raises(ValueError, match="tool"):
            llm.get_tool_calls_from_response(response)
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []


class City(BaseModel):
    """A city."""

    name: str


@cache
def template() -> "PromptTemplate":
    return prompt_template("Give me the capital of {country} as JSON.")


class StructuredConformance:
    """Of every LLM that gives structured output."""

    def make(self, **settings: Any) -> "LLM":
        """A model that always takes the most likely token."""
        raise NotImplementedError

    @pytest.fixture
    def llm(self) -> "LLM":
        return self.make()

    def test_an_object_is_predicted(self, llm):
        assert isinstance(llm.structured_predict(City, template(), country="France"), City)

    async def test_an_object_is_predicted_asynchronously(self, llm):
        assert await llm.astructured_predict(City, template(), country="France") == llm.structured_predict(
            City, template(), country="France"
        )

    async def test_an_object_grows(self, llm):
        whole = llm.structured_predict(City, template(), country="France")
        assert list(llm.stream_structured_predict(City, template(), country="France"))[-1] == whole
        stream = await llm.astream_structured_predict(City, template(), country="France")
        assert [grown async for grown in stream][-1] == whole

    def test_a_structured_model_answers_with_the_object(self, llm):
        response = llm.as_structured_llm(City).chat([chat_message("The capital of France as JSON.")])
        assert isinstance(response.raw, City)

    def test_the_prompt_stays_as_it_was(self, llm):
        prompt = prompt_template("Give me the capital of {country} as JSON.")
        llm.structured_predict(City, prompt, country="France")
        assert prompt.output_parser is None


class EmbeddingConformance:
    """Of every embedding model."""

    texts = ("The sun rises in the east.", "Bread is baked in an oven.", "")

    def make(self, **settings: Any) -> "BaseEmbedding":
        raise NotImplementedError

    @pytest.fixture
    def embedding(self) -> "BaseEmbedding":
        return self.make()

    def test_vectors_are_of_one_size(self, embedding):
        sizes = {len(vector) for vector in embedding.get_text_embedding_batch([*self.texts])}
        assert sizes == {len(embedding.get_query_embedding("Where does the sun rise?"))}

    def test_a_batch_gives_what_each_text_gives(self, embedding):
        vectors = embedding.get_text_embedding_batch([*self.texts])
        for text, vector in zip(self.texts, vectors, strict=True):
            assert vector == pytest.approx(embedding.get_text_embedding(text), abs=1e-5)

    def test_small_batches_keep_the_order(self):
        one_by_one = self.make(embed_batch_size=1).get_text_embedding_batch([*self.texts])
        for alone, together in zip(one_by_one, self.make().get_text_embedding_batch([*self.texts]), strict=True):
            assert alone == pytest.approx(together, abs=1e-5)

    async def test_the_asynchronous_forms_give_the_same(self, embedding):
        assert await embedding.aget_query_embedding("sun") == pytest.approx(
            embedding.get_query_embedding("sun"), abs=1e-5
        )
        vectors = await embedding.aget_text_embedding_batch([*self.texts])
        for text, vector in zip(self.texts, vectors, strict=True):
            assert vector == pytest.approx(await embedding.aget_text_embedding(text), abs=1e-5)

    def test_nodes_get_their_vectors(self, embedding):
        from llama_index.core.schema import TextNode

        (node,) = embedding([TextNode(text=self.texts[0])])
        assert node.embedding == pytest.approx(embedding.get_text_embedding(self.texts[0]), abs=1e-5)

    def test_events_tell_of_an_embedding(self, embedding, events):
        embedding.get_text_embedding("sun")
        assert {"EmbeddingStartEvent", "EmbeddingEndEvent"} <= set(events)
