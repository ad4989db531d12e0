"""`ascend-adapters serve`, and other people's clients on our engines."""

import json
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from ascend_adapters import ServerBackend
from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import ServerError
from langchain_ascend import ChatAscend

pytestmark = pytest.mark.engine

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
MODEL = "smollm2-135m-instruct"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_an_answer(server):
    body = json.dumps({"model": MODEL, "messages": QUESTION, "temperature": 0})
    headers = ["-H", f"Authorization: Bearer {server.api_key}", "-H", "Content-Type: application/json"]
    done = subprocess.run(
        ["curl", "-s", f"{server.url}/v1/chat/completions", *headers, "-d", body], capture_output=True, check=True
    )
    assert "Paris" in json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_the_openai_client_works_on_the_server(server):
    import openai

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.api_key) as client:
        answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    assert "Paris" in answer.choices[0].message.content


def test_the_openai_client_works_on_the_embedded_engine(engine):
    import openai

    with engine.openai_http_client() as http_client:
        client = openai.OpenAI(base_url="http://engine/v1", api_key="none", http_client=http_client)
        stream = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "Paris" in "".join(pieces)
    assert len(pieces) > 3


def test_chat_ascend_works_on_the_server(server):
    model = ChatAscend(base_url=server.url, model=MODEL, api_key=server.api_key, temperature=0)
    assert "Paris" in model.invoke("What is the capital of France?").content
    assert model.engine_info().device.startswith("cpu (no NPU")


def test_a_wrong_key_is_refused_with_the_remedy(server):
    with pytest.raises(ServerError, match=r"refuses the API key.*api_key=.*ASCEND_API_KEY"):
        run_sync(ServerBackend(server.url, MODEL, api_key="wrong").chat({"messages": QUESTION}))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/invocations", "/tokenize", "/metrics"])
def test_without_the_key_nothing_is_answered(server, path):
    body = {"model": MODEL, "messages": QUESTION}
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.post(path, json=body).status_code == 401
        assert client.get("/health").status_code == 200


def test_an_unknown_model_is_refused_with_its_name(server):
    from ascend_adapters.errors import RequestError

    with pytest.raises(RequestError, match="no-such-model"):
        run_sync(ServerBackend(server.url, "no-such-model", api_key=server.api_key).chat({"messages": QUESTION}))


def test_it_listens_on_this_machine_only(server):
    port = int(server.url.rsplit(":", 1)[1])
    listening = "0A"
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    addresses = [row[1] for row in rows if row[3] == listening and row[1].endswith(f":{port:04X}")]
    assert addresses == [f"0100007F:{port:04X}"]
