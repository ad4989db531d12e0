import asyncio
import json
import re

import httpx
import pytest

from ascend_adapters import ServerBackend
from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import RequestError, ServerError
from ascend_adapters.server import _decoded, _raise_for, _sse_objects

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def test_a_server_that_is_not_there_is_named_with_the_remedy():
    with pytest.raises(ServerError, match=r"no answer from http://127\.0\.0\.1:9 .*ascend-adapters serve"):
        run_sync(ServerBackend("http://127.0.0.1:9", "m").chat(HELLO))


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://host", "nonsense"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ServerError, match=r"is no server's address.*http://127"):
        ServerBackend(address)


def test_v1_at_the_end_of_an_address_may_be_left_out_or_not():
    assert ServerBackend("http://h:1/v1/").base_url == ServerBackend("http://h:1").base_url


def test_a_time_out_must_leave_time():
    with pytest.raises(RequestError, match=r"timeout=0 .*above 0"):
        ServerBackend("http://h:1", timeout=0)


@pytest.mark.parametrize("content", [object(), float("nan"), "\ud800"], ids=["object", "nan", "lone surrogate"])
def test_a_body_that_is_no_json_is_refused_before_it_is_sent(content):
    body = {"messages": [{"role": "user", "content": content}]}
    with pytest.raises(RequestError, match="cannot be sent as JSON"):
        run_sync(ServerBackend("http://127.0.0.1:9", "m").chat(body))


async def objects_in(pieces):
    async def arriving():
        for piece in pieces:
            yield piece

    return [item async for item in _sse_objects(arriving())]


async def test_a_connection_that_was_closed_meanwhile_costs_no_request():
    """A server may close it right after an answer: one connection answers once, and ends on the next request."""
    connections = []

    async def answer_once(reader, writer):
        connections.append(writer)
        headers = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", headers)[1]))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as server:
        backend = ServerBackend(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "m")
        for _ in range(3):
            assert await backend.chat(HELLO) == {}
        await backend.close()
    assert len(connections) == 3


async def test_a_stream_that_breaks_off_is_an_error():
    with pytest.raises(ServerError, match="ended the stream before its end"):
        await objects_in([b'data: {"text": "a"}\n\n'])


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, {"error": {"message": "too long", "code": None}}, RequestError, "too long"),
        (401, {"error": {"message": "no", "code": "invalid_api_key"}}, ServerError, "refuses the API key"),
        (404, "not here", RequestError, "not here"),
        (500, ["broken"], ServerError, "broken"),
    ],
)
def test_the_status_says_whose_fault_an_error_is(status, body, error, message):
    with pytest.raises(error, match=message):
        _raise_for(httpx.Response(status, json=body))


def test_a_server_of_another_kind_is_named():
    page = httpx.Response(200, text="<html>", request=httpx.Request("GET", "http://h:1/v1/models"))
    with pytest.raises(ServerError, match="http://h:1/v1/models does not answer as an OpenAI-compatible server"):
        _decoded(page)


async def test_events_are_read_however_the_bytes_arrive():
    sent = [{"text": "a\u2028b\x85c"}, {"text": "日本"}]
    stream = b"".join(f"data: {json.dumps(item, ensure_ascii=False)}\n\n".encode() for item in sent)
    stream = b": comment\n\n" + stream + b"data: [DONE]\n\n" + b"data: {}\n\n"
    for size in (1, 2, 7, 1000):
        assert await objects_in(stream[i : i + size] for i in range(0, len(stream), size)) == sent


async def test_an_overloaded_server_is_asked_again_as_often_as_was_said(monkeypatch):
    monkeypatch.setattr("ascend_adapters.sending.FIRST_PAUSE", 0.01)
    asked = []

    async def answer(request):
        asked.append(request)
        return httpx.Response(503 if len(asked) < 3 else 200, json={"choices": []})

    def client(backend, address):
        return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url=address)

    monkeypatch.setattr(ServerBackend, "_make_client", client)
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    with pytest.raises(ServerError, match="the server failed"):
        await ServerBackend("http://127.0.0.1:1", "m", max_retries=1).chat(body)
    assert len(asked) == 2
    assert await ServerBackend("http://127.0.0.1:1", "m", max_retries=1).chat(body) == {"choices": []}
