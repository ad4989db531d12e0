"""AscendEmbeddings: LangChain's embeddings interface on the contract."""

from typing import Any, Literal

from langchain_core.embeddings import Embeddings
from pydantic import PrivateAttr

from ascend_adapters.bridge import run_sync
from ascend_adapters.contract import Answer, Body, EngineInfo
from langchain_ascend.connection import Connected


class AscendEmbeddings(Connected, Embeddings):
    """Vectors of texts: `model=` runs the model here, `base_url=` asks a server.

    Any further keyword is an engine setting by vLLM's name. Where the model's own files name prompts for queries and
    documents, they are used.

    Example:
        .. code-block:: python

            from langchain_ascend import AscendEmbeddings

            AscendEmbeddings(model="all-minilm-l6-v2").embed_query("What is an NPU?")
    """

    dimensions: int | None = None
    """The first so many numbers of each vector, scaled to length 1; for models that were trained for it."""
    normalize: bool | None = None
    """Whether vectors have length 1; None: as the model's own files say."""
    query_prompt: str | None = None
    """What is put before queries, in place of the model's own prompt; "" for nothing."""
    document_prompt: str | None = None
    """As query_prompt, for documents."""
    truncate_prompt_tokens: int | None = None
    """Take this many tokens of each text, -1: as many as the model does; None: a text that is too long is an error."""

    _info: EngineInfo | None = PrivateAttr(default=None)

    def __init__(self, **settings: Any) -> None:
        """Raises SettingError or ModelError; nothing is started before the first call."""
        super().__init__(**settings)  # written here for type checkers: they would take the fields for all there is

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector of each text, all in one request."""
        return run_sync(self.aembed_documents(texts))

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return run_sync(self.aembed_query(text))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector of each text, all in one request."""
        if not texts:
            return []
        return _vectors(await self._backend.embed(await self._body(texts, "document", self.document_prompt)))

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        (vector,) = _vectors(await self._backend.embed(await self._body([text], "query", self.query_prompt)))
        return vector

    async def _body(self, texts: list[str], kind: Literal["query", "document"], prompt: str | None) -> Body:
        body: Body = {"input": texts if prompt is None else [prompt + text for text in texts]}
        if prompt is None and (own := (await self._known()).input_type_of(kind)):
            body["input_type"] = own
        given = {
            "dimensions": self.dimensions,
            "use_activation": self.normalize,
            "truncate_prompt_tokens": self.truncate_prompt_tokens,
        }
        return {**body, **{name: value for name, value in given.items() if value is not None}}

    async def _known(self) -> EngineInfo:
        """What the engine said when it was first asked: it does not change while it runs."""
        if self._info is None:
            self._info = await self._backend.info()
        return self._info


def _vectors(answer: Answer) -> list[list[float]]:
    return [item["embedding"] for item in sorted(answer["data"], key=lambda item: int(item["index"]))]
