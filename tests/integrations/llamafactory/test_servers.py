"""`llamafactory-ascend chat`, `api` and `webchat`, as a user starts them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

SCREENSHOTS = Path(__file__).parents[3] / ".screenshots"  # kept for whoever ran the tests
QUESTION = "What is the capital of France?"
# Of a browser that is closed off, and may run as root.
BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture
def config(tmp_path, chat_model_folder):
    """A file of arguments for the chat model."""

    def write(**arguments):
        file = tmp_path / "config.yaml"
        given = {
            "model_name_or_path": str(chat_model_folder),
            "template": "smollm2",
            "infer_backend": "ascend",
            "infer_dtype": "float32",
            "do_sample": False,
            "max_new_tokens": 24,
        }
        file.write_text(json.dumps({**given, **arguments}))
        return file

    return write


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def command(name, config, port, **environment):
    """`llamafactory-ascend NAME CONFIG`, which listens at the port; gives its log."""
    log = config.with_name(f"{name}.log")
    ports = {"API_PORT": str(port), "GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "llamafactory_ascend", name, str(config)],
            stdout=output,
            stderr=output,
            env={**os.environ, "BROWSER": "true", **ports, **environment},
        )
    try:
        deadline = time.monotonic() + 150
        while not _answers(port):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        yield log
    finally:
        process.terminate()
        process.wait(30)


def _answers(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code < 500
    except httpx.TransportError:
        return False


@pytest.mark.claim
def test_a_conversation_in_the_terminal(config, server):
    on_server = json.dumps({"base_url": server.url, "api_key": server.api_key})
    ended = subprocess.run(
        [sys.executable, "-m", "llamafactory_ascend", "chat", str(config(vllm_config=on_server))],
        input=f"{QUESTION}\nclear\nexit\n",
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "Assistant: The capital of France is Paris." in ended.stdout


def test_the_api_speaks_to_the_openai_client(config, server):
    import openai

    port = free_port()
    on_server = json.dumps({"base_url": server.url, "api_key": server.api_key})
    with command("api", config(vllm_config=on_server), port) as log:
        key = next(line for line in log.read_text().splitlines() if line.startswith("API key: ")).split()[-1]
        url, messages = f"http://127.0.0.1:{port}/v1", [{"role": "user", "content": QUESTION}]
        with openai.OpenAI(base_url=url, api_key=key) as client:
            whole = client.chat.completions.create(model="any", messages=messages)
            assert whole.choices[0].message.content == "The capital of France is Paris."
            assert whole.usage.completion_tokens == 8
            chunks = [
                chunk.choices[0].delta.content or ""
                for chunk in client.chat.completions.create(model="any", messages=messages, stream=True)
            ]
            assert "".join(chunks) == whole.choices[0].message.content
            assert len(chunks) > 4
            two = client.chat.completions.create(model="any", messages=messages, n=2, temperature=1.0)
            assert len(two.choices) == 2
        with openai.OpenAI(base_url=url, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="any", messages=messages)
        # Another address of this machine, where a server that listens at all of them would be.
        with socket.socket() as elsewhere, pytest.raises(OSError, match="refused"):
            elsewhere.connect(("127.0.0.2", port))


@pytest.mark.claim
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine: apt-get install chromium")
def test_a_question_in_the_web_page_is_answered_piece_by_piece(config):
    from playwright.sync_api import sync_playwright

    port = free_port()
    with command("webchat", config(), port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER)
        page = browser.new_page(viewport={"width": 1280, "height": 1300})
        page.goto(f"http://127.0.0.1:{port}")
        page.get_by_role("button", name="Run").first.wait_for()
        page.evaluate(REMEMBER_ANSWERS)
        page.locator("textarea").last.fill(QUESTION)
        page.get_by_role("button", name="Run").first.click()
        page.wait_for_function("() => window.answers.some(answer => answer.endsWith('.'))", timeout=60_000)
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "llamafactory_webchat.png")
        answers = page.evaluate("window.answers")
        browser.close()
    assert len(answers) > 3
    assert all(later.startswith(earlier) for earlier, later in pairwise(answers))
    assert "Paris" in answers[-1]


# Every text that the answer has had.
REMEMBER_ANSWERS = """() => {
    window.answers = [];
    new MutationObserver(() => {
        const last = [...document.querySelectorAll("[data-testid=bot]")].pop();
        const text = last ? last.innerText.trim() : "";
        if (text && text !== window.answers[window.answers.length - 1]) window.answers.push(text);
    }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""
