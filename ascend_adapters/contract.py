"""The contract between adapters and engines: OpenAI wire bodies, as plain dicts.

A body is what an OpenAI-compatible server takes as JSON, an answer what it gives back; vLLM's additional
fields (top_k, min_p, structured_outputs, ...) are part of it. `model` may be left out of a body: the backend
fills in its own. It may also name a LoRA adapter that the engine has loaded.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

Body = dict[str, Any]
Answer = dict[str, Any]
TASKS = ("chat", "complete", "embed", "score", "rerank", "classify")  # what an engine may be for: calls of a Backend
# What models call their prompts for each kind of text, in the order in which sentence-transformers looks for them
# (encode_query, encode_document).
INPUT_TYPES = {"query": ("query",), "document": ("document", "passage", "corpus")}


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a backend's engine is. None where the engine does not tell."""

    model: str
    max_model_len: int | None
    device: str | None  # for a person: "cpu (no NPU: torch_npu is not installed), operator set cpu"
    loras: tuple[str, ...] = ()
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    tasks: tuple[str, ...] | None = None  # those of TASKS that it answers
    input_types: tuple[str, ...] = ()  # what embed takes as input_type
    modalities: tuple[str, ...] | None = None  # what the model takes: ("text", "image", "video")

    def input_type_of(self, kind: Literal["query", "document"]) -> str | None:
        """The input_type that puts the model's own prompt before texts of this kind; None if it has none."""
        return next((name for name in INPUT_TYPES[kind] if name in self.input_types), None)


@runtime_checkable
class Backend(Protocol):
    """An engine, wherever it runs.

    All calls are coroutines that work on any event loop and in any thread; ascend_adapters.bridge runs them
    from synchronous code. Closing a stream, cancelling a call or its time-out aborts the request and frees
    its KV blocks. Every call may raise the errors of ascend_adapters.errors:

    RequestError     the body is wrong: an unknown field, no messages, a prompt longer than the context, ...; or the
                     model is not for this: a chat with an embedding model
    RequestTimeoutError   the backend's time-out passed
    ServerError      the server cannot be reached, refuses the key, or failed
    EngineStartError, EngineDiedError   the embedded engine did not start, or ended
    """

    async def info(self) -> EngineInfo:
        """The engine behind this backend; starts it if need be."""
        ...

    async def chat(self, body: Body) -> Answer:
        """One answer to body["messages"]. Source: OpenAI API reference, chat completions."""
        ...

    def chat_stream(self, body: Body) -> AsyncGenerator[Answer, None]:
        """The answer's chunks as they are generated; the last one holds the usage and no choices."""
        ...

    async def complete(self, body: Body) -> Answer:
        """A continuation of body["prompt"], a text or a list of token ids."""
        ...

    def complete_stream(self, body: Body) -> AsyncGenerator[Answer, None]:
        """The continuation's chunks as they are generated; the last one holds the usage and no choices."""
        ...

    async def embed(self, body: Body) -> Answer:
        """Vectors of body["input"], a text or a list of texts.

        body["input_type"] names a prompt of the model's own files ("query", "document") that is put before each text.
        """
        ...

    async def score(self, body: Body) -> Answer:
        """Similarity scores of body["text_1"] and body["text_2"]. Source: vLLM, /score."""
        ...

    async def rerank(self, body: Body) -> Answer:
        """body["documents"] ordered by relevance to body["query"]. Source: vLLM, /rerank."""
        ...

    async def classify(self, body: Body) -> Answer:
        """The labels of body["input"], a text or a list of texts, and their probabilities. Source: vLLM, /classify."""
        ...

    async def tokenize(self, body: Body) -> Answer:
        """Token ids of body["prompt"] or body["messages"]. Source: vLLM, /tokenize."""
        ...

    async def load_lora(self, name: str, path: str) -> None:
        """Make the LoRA adapter in the folder `path` of the engine's machine available as model `name`.

        The folder may be read again until the adapter is unloaded. Raises RequestError for an adapter that the
        engine cannot serve, or a name that is taken.
        """
        ...

    async def unload_lora(self, name: str) -> None:
        """Forget the LoRA adapter `name`; requests that use it go on. Raises RequestError if there is none."""
        ...

    async def close(self) -> None:
        """Give back what this backend holds. A later call opens it again."""
        ...
