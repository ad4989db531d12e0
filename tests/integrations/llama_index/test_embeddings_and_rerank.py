"""AscendEmbedding and AscendRerank translate: what they ask the backend, and what they make of the answers."""

import pytest

from ascend_adapters.errors import RequestError, SettingError
from ascend_adapters.testing import FakeBackend
from tests.integrations.llama_index.conformance import events

__all__ = ["events"]


class RecordingBackend(FakeBackend):
    """Keeps what it was asked to embed and to rank."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.embedded, self.ranked = [], []

    async def embed(self, body):
        self.embedded.append(body)
        return await super().embed({name: value for name, value in body.items() if name != "dimensions"})

    async def rerank(self, body):
        self.ranked.append(body)
        return await super().rerank(body)


def ascend_embedding(**settings):
    from llama_index.embeddings.ascend import AscendEmbedding

    return AscendEmbedding(**settings)


def ascend_rerank(**settings):
    from llama_index.postprocessor.ascend_rerank import AscendRerank

    return AscendRerank(**settings)


def test_a_batch_is_one_request():
    backend = RecordingBackend()
    ascend_embedding(backend=backend, embed_batch_size=2).get_text_embedding_batch(["a", "b", "c"])
    assert [body["input"] for body in backend.embedded] == [["a", "b"], ["c"]]


async def test_an_asynchronous_batch_is_one_request():
    backend = RecordingBackend()
    await ascend_embedding(backend=backend).aget_text_embedding_batch(["a", "b", "c"])
    assert [body["input"] for body in backend.embedded] == [["a", "b", "c"]]


@pytest.mark.parametrize("of_texts", ["document", "passage"])
def test_queries_and_texts_get_the_models_own_prompts(of_texts):
    backend = RecordingBackend(prompts={"query": "query: ", of_texts: "text: "})
    embedding = ascend_embedding(backend=backend)
    embedding.get_query_embedding("a")
    embedding.get_text_embedding("b")
    assert backend.embedded == [{"input": ["a"], "input_type": "query"}, {"input": ["b"], "input_type": of_texts}]


def test_instructions_stand_in_for_the_models_prompts():
    backend = RecordingBackend(prompts={"query": "query: "})
    embedding = ascend_embedding(backend=backend, query_instruction="Find: ", text_instruction="")
    embedding.get_query_embedding("a")
    embedding.get_text_embedding("b")
    assert backend.embedded == [{"input": ["Find: a"]}, {"input": ["b"]}]


def test_settings_become_the_body():
    backend = RecordingBackend()
    ascend_embedding(
        backend=backend, dimensions=8, truncate_prompt_tokens=-1, additional_kwargs={"priority": 1}
    ).get_text_embedding("a")
    assert backend.embedded == [
        {"input": ["a"], "dimensions": 8, "truncate_prompt_tokens": -1, "priority": 1},
    ]


def test_an_embedding_knows_its_name_and_its_engine():
    assert ascend_embedding(model="all-minilm-l6-v2").model_name == "all-minilm-l6-v2"
    assert ascend_embedding(model="all-minilm-l6-v2", dtype="float32").engine_settings == {"dtype": "float32"}
    with pytest.raises(SettingError, match="neither model nor base_url is given"):
        ascend_embedding()


def nodes(*texts):
    from llama_index.core.schema import NodeWithScore, TextNode

    return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]


def test_nodes_are_ranked_and_the_best_are_kept():
    backend = RecordingBackend()
    given = nodes("zzz", "abc", "abd")
    ranked = ascend_rerank(backend=backend, top_n=2).postprocess_nodes(given, query_str="abc")
    assert [node.text for node in ranked] == ["abc", "abd"]
    assert ranked[0].score == pytest.approx(1)
    assert backend.ranked == [{"query": "abc", "documents": ["zzz", "abc", "abd"], "top_n": 2}]
    assert [node.score for node in given] == [0.5] * 3, "the caller's stay as they were"


async def test_nodes_are_ranked_asynchronously_alike():
    from llama_index.core.schema import QueryBundle

    rerank = ascend_rerank(backend=FakeBackend(), top_n=2)
    ranked = await rerank.apostprocess_nodes(nodes("zzz", "abc"), QueryBundle("abc"))
    assert [node.text for node in ranked] == ["abc", "zzz"]


def test_the_score_of_the_retrieval_can_be_kept():
    rerank = ascend_rerank(backend=FakeBackend(), keep_retrieval_score=True, truncate_prompt_tokens=-1)
    (ranked,) = rerank.postprocess_nodes(nodes("abc"), query_str="abc")
    assert ranked.node.metadata == {"retrieval_score": 0.5}


def test_metadata_for_embeddings_is_ranked_too():
    from llama_index.core.schema import NodeWithScore, TextNode

    backend = RecordingBackend()
    node = TextNode(text="abc", metadata={"file": "a.md"})
    ascend_rerank(backend=backend).postprocess_nodes([NodeWithScore(node=node)], query_str="abc")
    assert backend.ranked[0]["documents"] == ["file: a.md\n\nabc"]


def test_no_nodes_need_no_engine_and_no_query_is_an_error():
    rerank = ascend_rerank(backend=FakeBackend(tasks=("chat",)))
    assert rerank.postprocess_nodes([], query_str="abc") == []
    with pytest.raises(RequestError, match="no query to rank the nodes by: give query_str"):
        rerank.postprocess_nodes(nodes("abc"))


def test_events_tell_of_a_ranking(events):
    from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler

    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = ascend_rerank(backend=FakeBackend(), callback_manager=CallbackManager([debug]))
    rerank.postprocess_nodes(nodes("abc"), query_str="abc")
    assert events == ["ReRankStartEvent", "ReRankEndEvent"]
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1


@pytest.mark.engine
async def test_a_real_model_puts_the_answer_first(embedding_engine):
    rerank = ascend_rerank(backend=embedding_engine, top_n=1)
    given = nodes("Bread is baked in an oven.", "The capital of France is Paris.", "Cats sleep all day.")
    assert rerank.postprocess_nodes(given, query_str="What is the capital of France?")[0].text == given[1].text
    assert (await rerank.apostprocess_nodes(given, query_str="Where is bread made?"))[0].text == given[0].text
