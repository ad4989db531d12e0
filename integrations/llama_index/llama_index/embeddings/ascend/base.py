"""AscendEmbedding: LlamaIndex's embedding interface on the contract."""

from typing import Any, Literal

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import Field
from llama_index.llms.ascend.on_ascend import OnAscend

from ascend_adapters.bridge import run_sync
from ascend_adapters.contract import Body, EngineInfo


class AscendEmbedding(OnAscend, BaseEmbedding):
    """An embedding model on Ascend: `model=` runs it here, `base_url=` asks a server.

    Any further keyword is an engine setting by vLLM's name; models with the same settings share one engine. Each
    batch of `embed_batch_size` texts is one request. Queries and texts get the prompts of the model's own files where
    it has some.

    Example:
        ```python
        from llama_index.embeddings.ascend import AscendEmbedding

        AscendEmbedding(model="all-minilm-l6-v2").get_text_embedding("The sun rises in the east.")
        ```
    """

    query_instruction: str | None = Field(
        default=None, description="What is put before a query, as it is; None: the model's own prompt, if it has one."
    )
    text_instruction: str | None = Field(default=None, description="The same for texts.")
    dimensions: int | None = Field(
        default=None, description="The size of the vectors, for models that can shorten them; None: the model's own."
    )
    truncate_prompt_tokens: int | None = Field(
        default=None, description="How many tokens of a longer text count; -1: as many as the model takes; None: error."
    )
    additional_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Further request fields by vLLM's names, for every call."
    )

    def __init__(self, **settings: Any) -> None:
        """Raises SettingError or ModelError; nothing is started before the first call."""
        # Events tell it; the engine's own name of the model is only known once it runs.
        super().__init__(**{"model_name": settings.get("model") or "unknown", **settings})

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises it."""
        return "AscendEmbedding"

    def _get_query_embedding(self, query: str) -> Embedding:
        return run_sync(self._embed("query", [query]))[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._embed("query", [query]))[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return run_sync(self._embed("document", [text]))[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._embed("document", [text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return run_sync(self._embed("document", texts))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self._embed("document", texts)

    async def _embed(self, kind: Literal["query", "document"], texts: list[str]) -> list[Embedding]:
        answer = await self._backend.embed(self._body(kind, texts, await self._aknown()))
        return [one["embedding"] for one in answer["data"]]

    def _body(self, kind: Literal["query", "document"], texts: list[str], info: EngineInfo) -> Body:
        body: Body = {"input": texts, **self.additional_kwargs}
        instruction = self.query_instruction if kind == "query" else self.text_instruction
        if instruction is not None:
            body["input"] = [instruction + text for text in texts]
        elif own := info.input_type_of(kind):
            body.setdefault("input_type", own)
        for name in ("dimensions", "truncate_prompt_tokens"):
            if (value := getattr(self, name)) is not None:
                body[name] = value
        return body
