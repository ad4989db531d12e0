"""AscendRerank: a document compressor that keeps what is most relevant to the query."""

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document

from ascend_adapters.bridge import run_sync
from ascend_adapters.contract import Body
from langchain_ascend.connection import Connected


class AscendRerank(Connected, BaseDocumentCompressor):
    """A reranker: `model=` runs it here, `base_url=` asks a server. Cross-encoders and embedding models will do.

    Any further keyword is an engine setting by vLLM's name. Documents come back in the order of their relevance, with
    the score in metadata["relevance_score"].
    """

    top_n: int | None = 3
    """How many documents to keep; None: all."""
    truncate_prompt_tokens: int | None = None
    """Take this many tokens of each text, -1: as many as the model does; None: a text that is too long is an error."""

    def __init__(self, **settings: Any) -> None:
        """Raises SettingError or ModelError; nothing is started before the first call."""
        super().__init__(**settings)  # written here for type checkers: they would take the fields for all there is

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The most relevant of `documents`, in order."""
        return run_sync(self.acompress_documents(documents, query, callbacks))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The most relevant of `documents`, in order."""
        if not documents:
            return []
        body: Body = {"query": query, "documents": [document.page_content for document in documents]}
        given = {"top_n": self.top_n, "truncate_prompt_tokens": self.truncate_prompt_tokens}
        body.update((name, value) for name, value in given.items() if value is not None)
        answer = await self._backend.rerank(body)
        return [_scored(documents[result["index"]], result["relevance_score"]) for result in answer["results"]]


def _scored(document: Document, score: float) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
