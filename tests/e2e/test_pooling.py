"""Pooling models through the contract, compared with sentence-transformers on the same weights."""

import pytest
import torch

from ascend_adapters import ServerBackend
from ascend_adapters.bridge import run_sync
from tests.conftest import EMBEDDING_MODEL
from tests.pooling_models import POOLING_FAMILIES, PROMPTS

pytestmark = pytest.mark.engine

WORDS = ["the", "quick", "fox", "jumps", "over", "a", "lazy", "dog", "while", "Zoë", "eats", "日本", "noodles", "🙂"]


def texts_of(num_texts):
    """Texts of 0 to 180 words, each another."""
    return [
        " ".join([*WORDS, str(i)][(i + k) % (len(WORDS) + 1)] for k in range(i * 37 % 181)) for i in range(num_texts)
    ]


@pytest.fixture(scope="module")
def reference(embedding_model_folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(embedding_model_folder), device="cpu")


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.claim)])
def backend(request):
    if request.param == "embedded":
        return request.getfixturevalue("embedding_engine")
    server = request.getfixturevalue("embedding_server")
    return ServerBackend(server.url, api_key=server.api_key)


def embeddings(backend, texts, **fields):
    answer = run_sync(backend.embed({"input": texts, **fields}))
    return torch.tensor([item["embedding"] for item in answer["data"]])


def largest_difference(given, wanted):
    assert given.shape == wanted.shape
    return float((given - wanted).abs().max())


@pytest.mark.parametrize(
    "texts",
    [pytest.param(texts_of(500), marks=pytest.mark.claim), texts_of(50), ["one text"], [""], ["", "a" * 600]],
    ids=["500", "50", "1", "empty", "2"],
)
def test_embeddings_are_those_of_sentence_transformers(backend, reference, texts):
    wanted = torch.tensor(reference.encode(texts))
    assert largest_difference(embeddings(backend, texts, truncate_prompt_tokens=-1), wanted) < 1e-5


def test_the_openai_client_gets_embeddings(embedding_engine, reference):
    import openai

    with embedding_engine.openai_http_client() as http_client:
        client = openai.OpenAI(base_url="http://engine/v1", api_key="none", http_client=http_client)
        answer = client.embeddings.create(model=EMBEDDING_MODEL, input=["one", "two"])
    given = torch.tensor([item.embedding for item in answer.data])
    assert largest_difference(given, torch.tensor(reference.encode(["one", "two"]))) < 1e-5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, engine_of):
    """Folder and engine of a tiny model."""

    def start(name, **settings):
        folder = POOLING_FAMILIES[name].build(tmp_path_factory.mktemp("models") / "model")
        return str(folder), engine_of(folder, dtype="float32", kv_cache_memory_bytes=64 << 20, **settings)

    return start


def test_the_prompt_that_input_type_names_is_put_before_texts(tiny):
    """Also where the tokenizer has a chat template, which is not for embeddings."""
    from sentence_transformers import SentenceTransformer

    folder, backend = tiny("Qwen3-Embedding", hf_overrides={"matryoshka_dimensions": [64, 256]})
    assert set(run_sync(backend.info()).input_types) == set(PROMPTS)
    texts, model = texts_of(20), SentenceTransformer(folder, device="cpu")
    for name in PROMPTS:
        wanted = torch.tensor(model.encode(texts, prompt_name=name))
        given = embeddings(backend, texts, input_type=name, truncate_prompt_tokens=-1)
        assert largest_difference(given, wanted) < 1e-5, name
    shorter = torch.tensor(model.encode(texts, prompt_name="query", truncate_dim=64, normalize_embeddings=True))
    given = embeddings(backend, texts, input_type="query", dimensions=64, truncate_prompt_tokens=-1)
    assert largest_difference(given, shorter) < 1e-5


def test_a_cross_encoder_scores_ranks_and_classifies(tiny):
    from sentence_transformers import CrossEncoder

    folder, backend = tiny("XLM-R cross-encoder")
    assert run_sync(backend.info()).tasks == ("score", "rerank", "classify")
    query, documents = "What jumps?", [text[:300] for text in texts_of(20)[1:]]
    wanted = CrossEncoder(folder, device="cpu").predict([(query, text) for text in documents])
    scores = run_sync(backend.score({"text_1": query, "text_2": documents}))["data"]
    assert [item["score"] for item in scores] == pytest.approx(wanted.tolist(), abs=1e-4)
    results = run_sync(backend.rerank({"query": query, "documents": documents}))["results"]
    assert [result["relevance_score"] for result in results] == pytest.approx(sorted(wanted, reverse=True), abs=1e-4)
    (label,) = run_sync(backend.classify({"input": documents[0]}))["data"]
    assert label["num_classes"] == 1
