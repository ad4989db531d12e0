"""The client of an OpenAI-compatible server: the contract over HTTP, and SSE for streams."""

import asyncio
import json
import os
import re
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, NoReturn

import httpx

from ascend_adapters.bridge import io_loop, on_io_loop, stream_on_io_loop
from ascend_adapters.contract import Answer, Body, EngineInfo
from ascend_adapters.cut_answers import check_streamed, check_whole
from ascend_adapters.errors import AscendError, RequestError, RequestTimeoutError, ServerError
from ascend_adapters.pooling_requests import check_classify, check_embed, check_rerank, check_score
from ascend_adapters.prompted_embedding import NO_INPUT_TYPE, PAGE, cohere_body, input_types_in, openai_answer
from ascend_adapters.requests import check_chat, check_complete, not_for
from ascend_adapters.sending import send

# Where a server answers each of contract.TASKS.
PAGES = {
    "chat": "/v1/chat/completions",
    "complete": "/v1/completions",
    "embed": "/v1/embeddings",
    "score": "/score",
    "rerank": "/rerank",
    "classify": "/classify",
}
CONNECT_TIMEOUT = 5.0  # seconds
MAX_CONNECTIONS = 512  # more calls wait their turn: a process may have 1,024 files open by default


class NoSuchPageError(RequestError):
    """The server has no page of this kind for this model."""


class HttpBackend(ABC):
    """The contract over HTTP; subclasses say whereto, and what a lost connection means."""

    def __init__(self, timeout: float | None = None, max_retries: int = 0) -> None:
        if max_retries < 0:
            raise RequestError(f"max_retries={max_retries} is negative: give 0 for none, or more.")
        if timeout is not None and timeout <= 0:
            raise RequestError(
                f"timeout={timeout} leaves no time to answer: give seconds above 0, or None for no limit."
            )
        self.timeout = timeout
        self.max_retries = max_retries
        self._http: httpx.AsyncClient | None = None
        self._http_for: tuple[str, asyncio.AbstractEventLoop] | None = None

    @abstractmethod
    async def _address(self) -> str:
        """Where the engine is, once it is ready to answer."""

    @abstractmethod
    def _make_client(self, address: str) -> httpx.AsyncClient:
        """A client of the engine at `address`."""

    @abstractmethod
    async def _explain(self, error: httpx.TransportError | ServerError, address: str) -> AscendError:
        """The error a caller gets when the connection to `address` failed, or the server there says that it failed."""

    @abstractmethod
    async def _model(self) -> str:
        """The model's name in request bodies that do not give one."""

    @on_io_loop
    async def info(self) -> EngineInfo:
        models = await self._get_json("/v1/models")
        cards = {card["id"]: card for card in models["data"]}
        name = await self._model()
        if name not in cards:
            raise ServerError(f"model {name!r} is not served there: it serves {', '.join(map(repr, cards))}.")
        tasks, metrics = await self._tasks(), await self._get_text("/metrics")
        model = cards.get(cards[name].get("parent"), cards[name])  # an adapter's card tells less
        return EngineInfo(
            model=name,
            max_model_len=model.get("max_model_len"),
            device=_device_from_metrics(metrics),
            loras=tuple(card["id"] for card in models["data"] if card.get("parent")),
            tasks=tasks,
            input_types=await self._input_types() if tasks and "embed" in tasks else (),
            modalities=_modalities_from_metrics(metrics),
        )

    @on_io_loop
    async def chat(self, body: Body) -> Answer:
        check_chat(body)
        return check_whole(body, await self._post("chat", {**body, "stream": False}))

    @stream_on_io_loop
    async def chat_stream(self, body: Body) -> AsyncGenerator[Answer, None]:
        check_chat(body)
        chunks = self._post_stream("chat", {**body, "stream": True})
        async with aclosing(check_streamed(body, chunks)) as stream:
            async for chunk in stream:
                yield chunk

    @on_io_loop
    async def complete(self, body: Body) -> Answer:
        check_complete(body)
        return await self._post("complete", {**body, "stream": False})

    @stream_on_io_loop
    async def complete_stream(self, body: Body) -> AsyncGenerator[Answer, None]:
        check_complete(body)
        async with aclosing(self._post_stream("complete", {**body, "stream": True})) as stream:
            async for chunk in stream:
                yield chunk

    @on_io_loop
    async def embed(self, body: Body) -> Answer:
        check_embed(body)
        if body.get("input_type") is None:
            return await self._post("embed", body)
        body = {"model": await self._model(), **body}
        return openai_answer(await self._post("embed", cohere_body(body), page=PAGE), body)

    @on_io_loop
    async def score(self, body: Body) -> Answer:
        check_score(body)
        return await self._post("score", body)

    @on_io_loop
    async def rerank(self, body: Body) -> Answer:
        check_rerank(body)
        return await self._post("rerank", body)

    @on_io_loop
    async def classify(self, body: Body) -> Answer:
        check_classify(body)
        return await self._post("classify", body)

    @on_io_loop
    async def tokenize(self, body: Body) -> Answer:
        return _decoded(await self._request("POST", "/tokenize", {"model": await self._model(), **body}))

    @on_io_loop
    async def load_lora(self, name: str, path: str) -> None:
        with _explaining_loras():
            await self._request("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})

    @on_io_loop
    async def unload_lora(self, name: str) -> None:
        with _explaining_loras():
            await self._request("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    @on_io_loop
    async def close(self) -> None:
        client, client_for = self._http, self._http_for
        self._http = self._http_for = None
        if client is not None and client_for is not None and client_for[1] is io_loop():
            await client.aclose()

    @on_io_loop
    async def metrics(self) -> str:
        """The engine's Prometheus metrics, as text; empty where the server has none."""
        return await self._get_text("/metrics")

    async def _get_text(self, path: str) -> str:
        try:
            return (await self._request("GET", path)).text
        except RequestError:  # not every server has every page
            return ""

    async def _get_json(self, path: str) -> Answer:
        return _decoded(await self._request("GET", path))

    async def _tasks(self) -> tuple[str, ...] | None:
        """The calls that the server has a page for; None if it does not tell."""
        has_page = await asyncio.gather(*map(self._has_page, PAGES.values()))
        return tuple(call for call, has_it in zip(PAGES, has_page, strict=True) if has_it) or None

    async def _has_page(self, path: str) -> bool:
        """Whether requests may be posted there. A server that has the page refuses to have it read: no work is done."""
        async with self._connected() as client:
            async with asyncio.timeout(self.timeout):
                return (await client.get(path)).status_code != httpx.codes.NOT_FOUND

    async def _input_types(self) -> tuple[str, ...]:
        body = {"model": await self._model(), "texts": [""], "input_type": NO_INPUT_TYPE}
        try:
            await self._request("POST", PAGE, body)
        except RequestError as error:
            return input_types_in(error)
        return ()  # a server that does not look at it

    async def _post(self, call: str, body: Body, page: str | None = None) -> Answer:
        body = {"model": await self._model(), **body}
        try:
            return _decoded(await self._request("POST", page or PAGES[call], body))
        except NoSuchPageError as error:
            raise await self._no_such_task(call, error) from error
        except RequestError as error:
            raise _with_truncation(call, error) from error

    async def _no_such_task(self, call: str, error: "NoSuchPageError") -> RequestError:
        tasks = await self._tasks()
        return error if tasks is None or call in tasks else not_for(call, await self._model(), tasks)

    async def _request(self, method: str, path: str, body: Body | None = None) -> httpx.Response:
        async with self._connected() as client:
            async with asyncio.timeout(self.timeout):
                response = await send(
                    client, method, path, None if body is None else _sendable(body), max_retries=self.max_retries
                )
                try:
                    await response.aread()
                finally:
                    await response.aclose()
            if response.is_error:
                _raise_for(response)
            return response

    async def _post_stream(self, call: str, body: Body) -> AsyncGenerator[Answer, None]:
        body = {"model": await self._model(), "stream_options": {"include_usage": True}, **body}
        async with self._connected() as client:
            sent = await send(client, "POST", PAGES[call], _sendable(body), max_retries=self.max_retries)
            async with aclosing(sent) as response:
                if response.is_error:
                    await response.aread()
                    try:
                        _raise_for(response)
                    except NoSuchPageError as error:
                        raise await self._no_such_task(call, error) from error
                async for chunk in _sse_objects(response.aiter_bytes()):
                    if "error" in chunk:
                        raise _error_from(chunk["error"])
                    yield chunk

    def _client(self, address: str) -> httpx.AsyncClient:
        # A restarted engine has another address; after a fork there is another I/O loop, and the old
        # connections belong to the parent.
        wanted = (address, io_loop())
        if self._http is None or self._http_for != wanted:
            self._http, self._http_for = self._make_client(address), wanted
            # A backend may be dropped without close(): its connections are closed all the same.
            weakref.finalize(self, _close_soon, self._http, io_loop()).atexit = False
        return self._http

    def _new_client(self, **where: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(self.timeout, connect=CONNECT_TIMEOUT, pool=None),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=64),
            **where,
        )

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[httpx.AsyncClient]:
        """The client, once the engine is ready; what goes wrong with it becomes an error for the caller."""
        address = await self._address()
        try:
            yield self._client(address)
        except (TimeoutError, httpx.ReadTimeout) as error:
            raise RequestTimeoutError(
                f"no answer within timeout={self.timeout} s; the request was aborted. "
                "Raise timeout, or lower max_tokens."
            ) from error
        except (httpx.TransportError, ServerError) as error:
            raise await self._explain(error, address) from error


class ServerBackend(HttpBackend):
    """An OpenAI-compatible server: `ascend-adapters serve`, or any vLLM."""

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float | None = None,
        max_retries: int = 0,
    ) -> None:
        """
        base_url     where the server is: "http://host:8000", with or without "/v1" at its end
        model        as the server names it; None: the first it lists
        api_key      None: the environment variable ASCEND_API_KEY, if set
        timeout      seconds until an answer, or until the next chunk of a stream; None: no limit
        max_retries  how often to ask again where the server cannot be reached, or says that it is overloaded

        Raises ServerError if base_url is no http or https address.
        """
        super().__init__(timeout, max_retries)
        self.base_url = _server_root(base_url)
        self._api_key = api_key if api_key is not None else os.environ.get("ASCEND_API_KEY")
        self._model_name = model

    def __repr__(self) -> str:
        return f"ServerBackend({self.base_url!r}, model={self._model_name!r})"

    async def _address(self) -> str:
        return self.base_url

    def _make_client(self, address: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        return self._new_client(base_url=address, headers=headers)

    async def _model(self) -> str:
        if self._model_name is None:
            models = await self._get_json("/v1/models")
            self._model_name = str(models["data"][0]["id"])
        return self._model_name

    async def _explain(self, error: httpx.TransportError | ServerError, address: str) -> AscendError:
        if isinstance(error, ServerError):
            return error
        return ServerError(
            f"no answer from {address} ({_reason(error)}): is the server running there? "
            "Start one with `ascend-adapters serve MODEL`, or correct base_url."
        )


class _FailedError(ServerError):
    """The server answers that it failed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the server failed: {reason}. Its log tells more.")
        self.reason = reason


@contextmanager
def _explaining_loras() -> Iterator[None]:
    try:
        yield
    except _FailedError as error:
        # vLLM (0.23) answers so to every adapter that it cannot load, and serves on.
        raise RequestError(_innermost(error.reason)) from error
    except NoSuchPageError as error:
        raise RequestError(
            "this engine takes no LoRA adapters: set enable_lora=True, or start the server with --enable-lora "
            "(and with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 if it is not `ascend-adapters serve`)."
        ) from error


def _innermost(reason: str) -> str:
    """Without what vLLM's engine core and its executor say around it."""
    reason = reason.removeprefix("Call to add_lora method failed: ")
    match = re.fullmatch(r"Worker failed with error '(.*)', please check the stack trace.*", reason, re.DOTALL)
    return match[1] if match else reason


def _close_soon(client: httpx.AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(client.aclose(), loop)


def _server_root(base_url: str) -> str:
    url = httpx.URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ServerError(f"base_url={base_url!r} is no server's address: it looks like http://127.0.0.1:8000.")
    return base_url.rstrip("/").removesuffix("/v1")


def _sendable(body: Body) -> Body:
    """`body`, if it can be JSON in UTF-8."""
    try:
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"the request cannot be sent as JSON: {error}. Use plain text, numbers, lists and dicts."
        ) from error
    return body


def _decoded(response: httpx.Response) -> Answer:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ServerError(f"{response.url} does not answer as an OpenAI-compatible server does: correct base_url.")
    return answer


def _raise_for(response: httpx.Response) -> NoReturn:
    try:
        body = response.json()
    except ValueError:
        body = response.text
    if response.status_code == httpx.codes.NOT_IMPLEMENTED or body == {"detail": "Not Found"}:
        raise NoSuchPageError(f"{response.url} is no page of this server: correct base_url, or use another model.")
    error = body.get("error", body) if isinstance(body, dict) else body
    error = error if isinstance(error, dict) else {"message": str(error)}
    # The status counts: the code in the body may be null, or a word.
    raise _error_from({**error, "code": response.status_code})


def _error_from(error: Body) -> AscendError:
    # "detail" is FastAPI's own word, as where there is no such path.
    code, message = error.get("code"), str(error.get("message") or error.get("detail") or "no reason given").strip()
    if code == httpx.codes.UNAUTHORIZED:
        return ServerError("the server refuses the API key: give api_key=..., or set ASCEND_API_KEY.")
    if isinstance(code, int) and 400 <= code < 500:
        return RequestError(message)
    return _FailedError(message)


def _with_truncation(call: str, error: RequestError) -> RequestError:
    """vLLM's own remedy for a text that is too long is for models that generate."""
    if call in ("chat", "complete") or "maximum context length" not in str(error):
        return error
    return RequestError(f"{error} Or give truncate_prompt_tokens=-1, to take as much of each text as the model does.")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _sse_objects(lines: AsyncIterator[bytes]) -> AsyncIterator[Answer]:
    """The JSON objects of server-sent events, until [DONE].

    Split at b"\\n" only: generated text may hold characters such as U+2028 that str.splitlines splits at.
    """
    buffer = b""
    async for piece in lines:
        *complete, buffer = (buffer + piece).split(b"\n")
        for line in complete:
            if not line.startswith(b"data:"):
                continue
            payload = line[len(b"data:") :].strip()
            if payload == b"[DONE]":
                return
            yield json.loads(payload)
    raise ServerError("the server ended the stream before its end: its log tells more.")


def _device_from_metrics(metrics: str) -> str | None:
    """What core_backend/metrics.py publishes; None from a server on another platform."""
    if match := re.search(r'^ascend_device_info\{device="(.*?)",op_set="(.*?)"\} 1', metrics, re.MULTILINE):
        return f"{match[1]}, operator set {match[2]}"
    return None


def _modalities_from_metrics(metrics: str) -> tuple[str, ...] | None:
    """As _device_from_metrics."""
    match = re.search(r'^ascend_model_info\{modalities="(.*?)"\} 1', metrics, re.MULTILINE)
    return tuple(match[1].split(",")) if match else None
