"""AscendLLM: LangChain's interface of models that continue a text."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LangSmithParams
from langchain_core.outputs import GenerationChunk, LLMResult

from ascend_adapters.bridge import iterate_sync, run_sync
from ascend_adapters.contract import Body
from langchain_ascend.answers import to_llm_result, to_text_chunk
from langchain_ascend.connection import call_settings
from langchain_ascend.tokens import CountsTokens

SAMPLING = ("temperature", "top_p", "max_tokens", "stop", "seed", "n", "logprobs")


class AscendLLM(CountsTokens, BaseLLM):
    """A model that continues a text: `model=` runs it here, `base_url=` asks a server.

    Any further keyword is an engine setting by vLLM's name; arguments of a single call are vLLM's request fields,
    and `lora="name"` answers with a LoRA adapter that the engine has loaded.

    Example:
        .. code-block:: python

            from langchain_ascend import AscendLLM

            AscendLLM(model="smollm2-135m-instruct", max_tokens=16).invoke("The capital of France is")
    """

    temperature: float | None = None
    """0: the most likely token; None: what the model's own files say, else 1."""
    top_p: float | None = None
    max_tokens: int | None = None
    """The most tokens to generate; None: vLLM's default, which is 16."""
    stop: list[str] | None = None
    seed: int | None = None
    n: int | None = None
    """How many continuations of each prompt."""
    logprobs: int | None = None
    """Log-probabilities of this many most likely tokens at each place."""
    extra_body: dict[str, Any] | None = None
    """Further fields of every request, by vLLM's names: top_k, min_p, repetition_penalty, ..."""

    def __init__(self, **settings: Any) -> None:
        """Raises SettingError or ModelError; nothing is started before the first call."""
        super().__init__(**settings)  # written here for type checkers: they would take the fields for all there is

    @property
    def _llm_type(self) -> str:
        return "ascend"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "base_url": self.base_url, **self.engine_settings, **self._sampling()}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        name = kwargs.get("lora") or kwargs.get("model") or self.model or ""
        return LangSmithParams(**{**params, "ls_provider": "ascend", "ls_model_name": name})

    def _sampling(self) -> dict[str, Any]:
        given = {name: value for name in SAMPLING if (value := getattr(self, name)) is not None}
        return {**given, **(self.extra_body or {})}

    def _body(self, prompt: str, stop: list[str] | None, kwargs: dict[str, Any]) -> Body:
        return {"prompt": prompt, **call_settings(self._sampling(), stop, kwargs)}

    async def _answers(self, prompts: list[str], stop: list[str] | None, kwargs: dict[str, Any]) -> LLMResult:
        """All prompts at once, as one continuous batch of the engine."""
        calls = [self._backend.complete(self._body(prompt, stop, kwargs)) for prompt in prompts]
        tasks = [asyncio.ensure_future(call) for call in calls]
        try:
            return to_llm_result(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:  # gather leaves the others running
                task.cancel()
            raise

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return run_sync(self._answers(prompts, stop, kwargs))

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return await self._answers(prompts, stop, kwargs)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        for body in iterate_sync(self._backend.complete_stream(self._body(prompt, stop, kwargs))):
            chunk = to_text_chunk(body)
            if run_manager and chunk.text:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        async with aclosing(self._backend.complete_stream(self._body(prompt, stop, kwargs))) as stream:
            async for body in stream:
                chunk = to_text_chunk(body)
                if run_manager and chunk.text:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
