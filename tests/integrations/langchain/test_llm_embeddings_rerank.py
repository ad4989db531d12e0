"""AscendLLM, AscendEmbeddings and AscendRerank: what they ask the backend, and what they make of the answers."""

import asyncio
import math

import pytest
from langchain_core.documents import Document

from ascend_adapters.errors import RequestError
from ascend_adapters.testing import FakeBackend
from langchain_ascend import AscendEmbeddings, AscendLLM, AscendRerank


def test_a_text_is_continued_whole_and_in_pieces():
    model = AscendLLM(backend=FakeBackend(" Paris"), max_tokens=9)
    assert model.invoke("The capital of France is") == " Paris"
    assert list(model.stream("The capital of France is"))[:6] == list(" Paris")


async def test_the_asynchronous_forms_give_the_same():
    model = AscendLLM(backend=FakeBackend(" Paris"))
    assert await model.ainvoke("The capital of France is") == " Paris"
    assert "".join([text async for text in model.astream("The capital")]) == " Paris"


def test_settings_of_the_model_and_of_the_call_become_fields():
    backend = FakeBackend("ok")
    AscendLLM(backend=backend, temperature=0.5, extra_body={"top_k": 7}).invoke("Hi", stop=["x"], seed=3)
    assert backend.bodies == [{"prompt": "Hi", "temperature": 0.5, "top_k": 7, "seed": 3, "stop": ["x"]}]


def test_all_prompts_are_one_batch_with_its_usage():
    result = AscendLLM(backend=FakeBackend("ok")).generate(["a", "bc"], logprobs=1)
    assert [generation.text for (generation,) in result.generations] == ["ok", "ok"]
    assert result.llm_output["token_usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_a_prompt_that_is_too_long_ends_the_batch_with_its_error():
    with pytest.raises(RequestError, match="the context 5"):
        AscendLLM(backend=FakeBackend("ok", max_model_len=5)).generate(["a", "b" * 9])


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_input_that_fails_leaves_the_others_of_its_batch_their_answers(asynchronous):
    model = AscendLLM(backend=FakeBackend("ok", max_model_len=5))
    inputs = ["a", "b" * 9, "c"]
    first, error, last = (
        asyncio.run(model.abatch(inputs, return_exceptions=True))
        if asynchronous
        else model.batch(inputs, return_exceptions=True)
    )
    assert first == last == "ok"
    assert isinstance(error, RequestError)


class CountingBackend(FakeBackend):
    """Keeps the embed requests."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.embedded = []

    async def embed(self, body):
        self.embedded.append(body)
        return await super().embed(body)


def test_documents_are_one_request_in_their_order():
    backend = CountingBackend()
    model = AscendEmbeddings(backend=backend)
    vectors = model.embed_documents(["a", "b", "a"])
    assert vectors[0] == vectors[2] != vectors[1]
    assert vectors[0] == model.embed_query("a")
    assert [body["input"] for body in backend.embedded] == [["a", "b", "a"], ["a"]]
    assert model.embed_documents([]) == []


def test_the_models_own_prompts_are_named_and_those_given_are_put_before_texts():
    backend = CountingBackend(prompts={"query": "Q: ", "passage": "D: "})
    AscendEmbeddings(backend=backend).embed_query("a")
    AscendEmbeddings(backend=backend).embed_documents(["a"])
    AscendEmbeddings(backend=backend, document_prompt="text: ").embed_documents(["a"])
    assert backend.embedded == [
        {"input": ["a"], "input_type": "query"},
        {"input": ["a"], "input_type": "passage"},
        {"input": ["text: a"]},
    ]


def test_dimensions_are_the_engines_to_refuse():
    with pytest.raises(RequestError, match="embeddings of one size"):
        AscendEmbeddings(backend=FakeBackend(), dimensions=8).embed_query("a")


def test_a_text_that_is_too_long_is_an_error_unless_it_may_be_cut():
    backend = FakeBackend(max_model_len=5)
    with pytest.raises(RequestError, match="the context 5"):
        AscendEmbeddings(backend=backend).embed_query("a" * 9)
    cut = AscendEmbeddings(backend=backend, truncate_prompt_tokens=-1)
    assert cut.embed_query("aaaaabbb") == cut.embed_query("aaaaa")
    with pytest.raises(RequestError, match="the context 5"):
        AscendRerank(backend=backend).compress_documents([Document("b" * 9)], "a")
    (kept,) = AscendRerank(backend=backend, truncate_prompt_tokens=-1).compress_documents([Document("b" * 9)], "a")
    assert kept.page_content == "b" * 9


def test_a_vector_store_finds_what_is_alike():
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore(AscendEmbeddings(backend=FakeBackend()))
    store.add_texts(["aaaa", "bbbb"])
    (found,) = store.similarity_search("aab", k=1)
    assert found.page_content == "aaaa"


async def test_the_most_relevant_documents_are_kept_with_their_scores():
    documents = [Document("bbb", metadata={"at": 1}), Document("aaa", metadata={"at": 2}), Document("ab")]
    model = AscendRerank(backend=FakeBackend(), top_n=2)
    kept = model.compress_documents(documents, "a")
    assert [document.page_content for document in kept] == ["aaa", "ab"]
    assert kept[0].metadata == {"at": 2, "relevance_score": pytest.approx(1.0)}
    assert kept[1].metadata["relevance_score"] == pytest.approx(math.sqrt(0.5))
    assert "relevance_score" not in documents[1].metadata
    assert await model.acompress_documents(documents, "a") == kept
    assert model.compress_documents([], "a") == []
