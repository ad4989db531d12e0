"""AscendRerank: LlamaIndex's node postprocessor on the contract."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index.llms.ascend.on_ascend import OnAscend
from llama_index_instrumentation import get_dispatcher

from ascend_adapters.bridge import run_sync
from ascend_adapters.contract import Answer, Body
from ascend_adapters.errors import RequestError

dispatcher = get_dispatcher(__name__)


class AscendRerank(OnAscend, BaseNodePostprocessor):
    """Nodes by relevance to the query: `model=` ranks them here, `base_url=` asks a server.

    The model is a cross-encoder, or an embedding model, whose vectors are compared. Any further keyword is an engine
    setting by vLLM's name; models with the same settings share one engine, also with AscendEmbedding.

    Example:
        ```python
        from llama_index.postprocessor.ascend_rerank import AscendRerank

        AscendRerank(model="all-minilm-l6-v2", top_n=3).postprocess_nodes(nodes, query_str="Who?")
        ```
    """

    top_n: int = Field(default=2, description="How many of the nodes are kept.", gt=0)
    keep_retrieval_score: bool = Field(
        default=False, description="Keep the score that a node came with, as retrieval_score in its metadata."
    )
    truncate_prompt_tokens: int | None = Field(
        default=None, description="How many tokens of a longer text count; -1: as many as the model takes; None: error."
    )

    def __init__(self, **settings: Any) -> None:
        """Raises SettingError or ModelError; nothing is started before the first call."""
        # Written here for type checkers: they would take the fields for all there is.
        super().__init__(**settings)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises it."""
        return "AscendRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _text_of(query_bundle)
        if not nodes:
            return []
        with self._told(nodes, query) as ranked:
            ranked += self._ranked(nodes, run_sync(self._backend.rerank(self._body(nodes, query))))
        return ranked

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _text_of(query_bundle)
        if not nodes:
            return []
        with self._told(nodes, query) as ranked:
            ranked += self._ranked(nodes, await self._backend.rerank(self._body(nodes, query)))
        return ranked

    def _body(self, nodes: list[NodeWithScore], query: str) -> Body:
        documents = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        body: Body = {"query": query, "documents": documents, "top_n": self.top_n}
        if self.truncate_prompt_tokens is not None:
            body["truncate_prompt_tokens"] = self.truncate_prompt_tokens
        return body

    def _ranked(self, nodes: list[NodeWithScore], answer: Answer) -> list[NodeWithScore]:
        ranked = []
        for result in answer["results"]:
            given = nodes[result["index"]]
            if self.keep_retrieval_score:
                given.node.metadata["retrieval_score"] = given.score
            ranked.append(NodeWithScore(node=given.node, score=result["relevance_score"]))
        return ranked

    @contextmanager
    def _told(self, nodes: list[NodeWithScore], query: str) -> Iterator[list[NodeWithScore]]:
        """Core's events around a ranking, whose nodes are put into the list that this gives."""
        name = self.model or "unknown"
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=self.top_n, model_name=name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
        }
        ranked: list[NodeWithScore] = []
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield ranked
            event.on_end(payload={EventPayload.NODES: ranked})
        dispatcher.event(ReRankEndEvent(nodes=ranked))


def _text_of(query: QueryBundle | None) -> str:
    if query is None:
        raise RequestError("there is no query to rank the nodes by: give query_str=... or query_bundle=....")
    return query.query_str
