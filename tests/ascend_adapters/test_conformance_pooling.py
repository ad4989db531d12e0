"""The contract of embedding models, held by every backend alike, as test_conformance.py has it for those that chat."""

import base64
import math
import struct

import pytest

from ascend_adapters import Backend, ServerBackend
from ascend_adapters.bridge import iterate_sync, run_sync
from ascend_adapters.errors import RequestError
from ascend_adapters.testing import FakeBackend

TEXTS = ["Paris", "The capital of France is Paris.", "", "a", "zebras eat grass " * 20]
POOLING = ("embed", "score", "rerank")


@pytest.fixture(
    params=[
        "fake",
        pytest.param("embedded", marks=pytest.mark.engine),
        pytest.param("server", marks=[pytest.mark.engine, pytest.mark.claim]),
    ]
)
def backend(request) -> Backend:
    if request.param == "fake":
        return FakeBackend(model="fake", tasks=POOLING, max_model_len=512)
    if request.param == "embedded":
        return request.getfixturevalue("embedding_engine")
    server = request.getfixturevalue("embedding_server")
    return ServerBackend(server.url, api_key=server.api_key)


def vectors_of(answer):
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    return [item["embedding"] for item in answer["data"]]


def test_info_says_what_the_model_is_for(backend):
    info = run_sync(backend.info())
    assert info.tasks == POOLING
    assert info.input_types == ()


def test_texts_get_the_vectors_that_they_get_alone_in_their_order(backend):
    together = vectors_of(run_sync(backend.embed({"input": TEXTS})))
    alone = [vectors_of(run_sync(backend.embed({"input": text})))[0] for text in TEXTS]
    assert len({len(vector) for vector in together}) == 1
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_vectors_have_length_1(backend):
    (vector,) = vectors_of(run_sync(backend.embed({"input": ["Paris"]})))
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-5)


def test_token_ids_get_the_vector_of_their_text(backend):
    ids = run_sync(backend.tokenize({"prompt": TEXTS[1]}))["tokens"]
    from_ids, from_text = (run_sync(backend.embed({"input": given})) for given in ([ids], TEXTS[1]))
    assert vectors_of(from_ids)[0] == pytest.approx(vectors_of(from_text)[0], abs=1e-6)
    assert from_ids["usage"]["prompt_tokens"] == len(ids)


def test_vectors_come_in_base64_too(backend):
    plain, encoded = (
        vectors_of(run_sync(backend.embed({"input": "Paris", "encoding_format": encoding})))[0]
        for encoding in ("float", "base64")
    )
    assert struct.unpack(f"<{len(plain)}f", base64.b64decode(encoded)) == pytest.approx(plain, abs=1e-6)


def test_one_text_is_scored_with_many_and_many_one_by_one(backend):
    with_one = run_sync(backend.score({"text_1": "Paris", "text_2": TEXTS[:2]}))
    one_by_one = run_sync(backend.score({"text_1": ["Paris", "Paris"], "text_2": TEXTS[:2]}))
    scores, same_scores = ([item["score"] for item in answer["data"]] for answer in (with_one, one_by_one))
    assert scores == pytest.approx(same_scores, abs=1e-6)
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert scores[1] < 0.99


def test_documents_are_ranked_by_score(backend):
    answer = run_sync(backend.rerank({"query": "Paris", "documents": TEXTS}))
    scores = run_sync(backend.score({"text_1": "Paris", "text_2": TEXTS}))["data"]
    ranked = sorted(range(len(TEXTS)), key=lambda i: -scores[i]["score"])
    assert [result["index"] for result in answer["results"]] == ranked
    assert [result["document"]["text"] for result in answer["results"]] == [TEXTS[i] for i in ranked]


@pytest.mark.parametrize(("top_n", "num_results"), [(2, 2), (0, len(TEXTS)), (99, len(TEXTS))])
def test_the_best_documents_can_be_asked_for(backend, top_n, num_results):
    answer = run_sync(backend.rerank({"query": "Paris", "documents": TEXTS, "top_n": top_n}))
    assert len(answer["results"]) == num_results
    assert answer["results"][0]["index"] == 0


def test_a_text_that_is_too_long_is_cut_if_the_body_says_so(backend):
    long = "zebra " * 700
    at_its_limit, short = (
        run_sync(backend.embed({"input": long, "truncate_prompt_tokens": limit})) for limit in (-1, 16)
    )
    assert short["usage"]["prompt_tokens"] == 16
    assert at_its_limit["usage"]["prompt_tokens"] == run_sync(backend.info()).max_model_len


BAD_REQUESTS = {
    "unknown keyword": ("embed", {"inputs": "a"}, "'inputs'.*'input'"),
    "no texts": ("embed", {"input": []}, "input is empty: give a text"),
    "no input": ("embed", {}, "input is empty: give a text"),
    "texts and numbers": ("embed", {"input": ["a", 1]}, "a list of int and str: give a text, a list of texts"),
    "nothing among texts": ("embed", {"input": ["a", None]}, "a list of NoneType and str"),
    "input and messages": ("embed", {"input": "a", "messages": [{"role": "user", "content": "a"}]}, "give one of them"),
    "too long": ("embed", {"input": ["a", "zebra " * 700]}, r"(256|512).*truncate_prompt_tokens=-1"),
    "too long to score": ("score", {"text_1": "a", "text_2": "zebra " * 700}, r"(256|512).*truncate_prompt_tokens=-1"),
    "cut to nothing": ("embed", {"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens=0.*-1"),
    "no such size": ("embed", {"input": "a", "dimensions": 32}, "(?s)matryoshka|dimensions"),
    "size below 1": ("embed", {"input": "a", "dimensions": 0}, "dimensions=0 .*at least 1"),
    "not for JSON": ("embed", {"input": "a", "encoding_format": "bytes"}, "'bytes' .*float or base64"),
    "no such prompt": ("embed", {"input": "a", "input_type": "query"}, "input_type"),
    "prompt for token ids": ("embed", {"input": [1, 2], "input_type": "query"}, "before texts: give input as a text"),
    "prompt and more": (
        "embed",
        {"input": "a", "input_type": "query", "add_special_tokens": False},
        "add_special_tokens does not go with input_type",
    ),
    "nothing to score": ("score", {"text_1": "a", "text_2": []}, "text_2 is empty"),
    "unequal lists": ("score", {"text_1": ["a", "b"], "text_2": ["a"]}, "text_1 has 2 texts and text_2 1"),
    "numbers to score": ("score", {"text_1": "a", "text_2": [3]}, r"text_2 has 3 \(int\) in it: it takes texts"),
    "no documents": ("rerank", {"query": "a", "documents": []}, "documents is empty"),
    "no query": ("rerank", {"documents": ["a"]}, "query is empty"),
    "several queries": ("rerank", {"query": ["a", "b"], "documents": ["a"]}, "query is a list: give one text"),
    "fewer than none": ("rerank", {"query": "a", "documents": ["a"], "top_n": -1}, "top_n=-1 .*at least 0"),
    "a chat": ("chat", {"messages": [{"role": "user", "content": "a"}]}, "does not answer chat .*for embed, score"),
    "a completion": ("complete", {"prompt": "a"}, "does not answer complete requests.*such as 'smollm2"),
    "a classification": ("classify", {"input": "a"}, "does not answer classify requests: it is for embed"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_request_gets_one_error_that_names_the_value_and_the_remedy(backend, case):
    call, body, message = BAD_REQUESTS[case]
    with pytest.raises(RequestError, match=message):
        run_sync(getattr(backend, call)(body))
    assert len(vectors_of(run_sync(backend.embed({"input": "a"})))) == 1


def test_a_stream_is_refused_as_a_whole_answer_is(backend):
    with pytest.raises(RequestError, match="does not answer chat requests"):
        list(iterate_sync(backend.chat_stream({"messages": [{"role": "user", "content": "a"}]})))


def test_the_fake_one_classifies_and_puts_prompts_before_texts():
    backend = FakeBackend(prompts={"query": "search for: "})
    assert run_sync(backend.info()).input_types == ("query",)
    with_prompt, written = (
        vectors_of(run_sync(backend.embed(body)))
        for body in ({"input": "a", "input_type": "query"}, {"input": "search for: a"})
    )
    assert with_prompt == written
    labels = [item["label"] for item in run_sync(backend.classify({"input": ["a", "b" * 99]}))["data"]]
    assert labels == ["short", "long"]
