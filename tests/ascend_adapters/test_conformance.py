"""The contract, held by every backend alike: the fake one, the embedded engine, and a server's client."""

import asyncio
import threading

import pytest

from ascend_adapters import Backend, ServerBackend
from ascend_adapters.bridge import iterate_sync, run_sync
from ascend_adapters.errors import RequestError
from ascend_adapters.testing import FakeBackend

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(
    params=[
        "fake",
        pytest.param("embedded", marks=pytest.mark.engine),
        pytest.param("server", marks=pytest.mark.engine),
    ]
)
def backend(request) -> Backend:
    if request.param == "fake":
        return FakeBackend("The capital of France is Paris.")
    if request.param == "embedded":
        return request.getfixturevalue("engine")
    server = request.getfixturevalue("server")
    return ServerBackend(server.url, api_key=server.api_key)


def chat_body(**fields):
    return {"messages": QUESTION, "temperature": 0, **fields}


def text_of(answer):
    return answer["choices"][0]["message"]["content"]


def test_it_is_a_backend(backend):
    assert isinstance(backend, Backend)


def test_info_names_the_model_its_context_and_the_device(backend):
    info = run_sync(backend.info())
    assert info.model
    assert info.max_model_len >= 1024
    assert info.device
    assert info.modalities == ("text",)


def test_an_answer_has_text_a_reason_to_end_and_usage_that_adds_up(backend):
    answer = run_sync(backend.chat(chat_body()))
    assert "Paris" in text_of(answer)
    assert answer["choices"][0]["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_is_the_answer_in_pieces_and_ends_with_the_usage(backend):
    whole = run_sync(backend.chat(chat_body()))
    *chunks, last = iterate_sync(backend.chat_stream(chat_body()))
    pieces = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(pieces) == text_of(whole)
    assert sum(map(bool, pieces)) > 3
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_a_model_that_is_not_served_is_refused(backend):
    with pytest.raises(RequestError, match="The model `nobody` does not exist"):
        run_sync(backend.chat(chat_body(model="nobody")))


def test_max_tokens_cuts_the_answer_and_says_so(backend):
    answer = run_sync(backend.chat(chat_body(max_tokens=3)))
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(backend):
    answer = run_sync(backend.chat(chat_body(stop=["Par"])))
    assert text_of(answer) == "The capital of France is "
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_n_answers_can_be_asked_for(backend):
    answer = run_sync(backend.chat(chat_body(n=2, temperature=1.0, max_tokens=8)))
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]


def test_logprobs_come_for_every_token(backend):
    answer = run_sync(backend.chat(chat_body(logprobs=True, max_tokens=4)))
    logprobs = [token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]]
    assert len(logprobs) == 4
    assert all(logprob <= 0 for logprob in logprobs)


def test_token_ids_complete_as_their_text_does(backend):
    prompt = "The capital of France is"
    ids = run_sync(backend.tokenize({"prompt": prompt}))["tokens"]
    from_text, from_ids = (
        run_sync(backend.complete({"prompt": given, "max_tokens": 8, "temperature": 0})) for given in (prompt, ids)
    )
    assert from_text["choices"][0]["text"] == from_ids["choices"][0]["text"]
    assert from_ids["usage"]["prompt_tokens"] == len(ids)


def test_a_completion_streams_too(backend):
    body = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    whole = run_sync(backend.complete(body))
    *chunks, last = iterate_sync(backend.complete_stream(body))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]
    assert last["usage"].items() <= whole["usage"].items()


def test_tokenize_counts(backend):
    counted = run_sync(backend.tokenize({"prompt": "Hello"}))
    assert counted["count"] == len(counted["tokens"]) > 0
    assert counted["max_model_len"] == run_sync(backend.info()).max_model_len


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
BAD_REQUESTS = {
    "unknown keyword": (chat_body(temprature=0.5), "'temprature'.*'temperature'"),
    "no messages": ({"messages": []}, "messages is empty"),
    "nothing to generate": (chat_body(max_tokens=0), "max_tokens=0.*at least 1"),
    "negative temperature": (chat_body(temperature=-1), "temperature=-1.*0"),
    "an image for a model that reads text only": (
        {"messages": [{"role": "user", "content": [PICTURE]}]},
        "is not a multimodal model",
    ),
    "prompt longer than the context": (
        {"messages": [{"role": "user", "content": "hello " * 9000}]},
        r"(?s)\d{4}.*(shorten|reduce)",
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_request_gets_one_error_that_names_the_value_and_the_remedy(backend, case, stream):
    body, message = BAD_REQUESTS[case]

    def ask():
        return list(iterate_sync(backend.chat_stream(body))) if stream else run_sync(backend.chat(body))

    with pytest.raises(RequestError, match=message):
        ask()
    assert "Paris" in text_of(run_sync(backend.chat(chat_body())))


def test_a_closed_stream_leaves_the_backend_well(backend):
    stream = iterate_sync(backend.chat_stream(chat_body()))
    next(stream)
    stream.close()
    assert "Paris" in text_of(run_sync(backend.chat(chat_body())))


def test_it_works_on_one_event_loop_after_another(backend):
    answers = [asyncio.run(backend.chat(chat_body())) for _ in range(2)]
    assert all("Paris" in text_of(answer) for answer in answers)


def test_it_works_in_several_threads_at_once(backend):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(run_sync(backend.chat(chat_body())))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all("Paris" in text_of(answer) for answer in answers)


async def test_an_asynchronous_stream_can_be_left_early(backend):
    stream = backend.chat_stream(chat_body())
    async for _ in stream:
        break
    await stream.aclose()
    assert "Paris" in text_of(await backend.chat(chat_body()))
