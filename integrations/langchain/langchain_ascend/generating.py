"""What ChatAscend and AscendLLM have in common: how tokens are sampled, counted and streamed."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams
from langchain_core.outputs import ChatGenerationChunk, GenerationChunk

from ascend_adapters.bridge import iterate_sync, run_sync
from ascend_adapters.contract import Answer, Body
from ascend_adapters.requests import merged
from langchain_ascend.connection import Connected

C = TypeVar("C", GenerationChunk, ChatGenerationChunk)


class Generates(Connected):
    """A model that generates."""

    SAMPLING: ClassVar[tuple[str, ...]] = ("temperature", "top_p", "max_tokens", "stop", "seed", "n", "logprobs")
    """The fields of this class that are fields of its requests."""

    temperature: float | None = None
    """0: the most likely token; None: what the model's own files say, else 1."""
    top_p: float | None = None
    stop: list[str] | None = None
    """Texts that end an answer."""
    seed: int | None = None
    """The same seed gives the same answer."""
    extra_body: dict[str, Any] | None = None
    """Further fields of every request, by vLLM's names: top_k, min_p, repetition_penalty, chat_template_kwargs, ..."""

    def get_token_ids(self, text: str) -> list[int]:
        """The ids of a text's tokens, without those that begin or end a prompt. Starts the engine if need be.

        By the model's own tokenizer: nothing is fetched from a network.
        """
        return self._tokens_of({"prompt": text, "add_special_tokens": False}) if text else []

    def get_num_tokens(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.get_token_ids(text))

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "base_url": self.base_url, **self.engine_settings, **self._sampling()}

    def _tokens_of(self, body: Body) -> list[int]:
        return list(run_sync(self._backend.tokenize(body))["tokens"])

    def _sampling(self) -> dict[str, Any]:
        given = {name: value for name in self.SAMPLING if (value := getattr(self, name)) is not None}
        return {**given, **(self.extra_body or {})}

    def _settings(self, stop: list[str] | None, call: Mapping[str, Any]) -> Body:
        """The fields of a request besides its prompt."""
        return merged(self._sampling(), call if stop is None else {**call, "stop": stop})

    def _traced(self, params: LangSmithParams, call: Mapping[str, Any]) -> LangSmithParams:
        name = call.get("lora") or call.get("model") or self.model or ""
        return LangSmithParams(**{**params, "ls_provider": "ascend", "ls_model_name": name})


def told(
    stream: AsyncGenerator[Answer, None], to_chunk: Callable[[Answer], C], run_manager: CallbackManagerForLLMRun | None
) -> Iterator[C]:
    """LangChain's chunks of `stream`; callbacks hear of each."""
    for body in iterate_sync(stream):
        chunk = to_chunk(body)
        if run_manager and chunk.text:
            run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk


async def atold(
    stream: AsyncGenerator[Answer, None],
    to_chunk: Callable[[Answer], C],
    run_manager: AsyncCallbackManagerForLLMRun | None,
) -> AsyncIterator[C]:
    """As told. Closing it aborts the request and frees its KV blocks: it is not left to the garbage collector."""
    async with aclosing(stream) as bodies:
        async for body in bodies:
            chunk = to_chunk(body)
            if run_manager and chunk.text:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk
