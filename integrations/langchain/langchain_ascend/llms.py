"""AscendLLM: LangChain's interface of models that continue a text."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LangSmithParams, LanguageModelInput
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig

from ascend_adapters.bridge import run_sync
from ascend_adapters.contract import Body
from langchain_ascend.answers import to_llm_result, to_text_chunk
from langchain_ascend.generating import Generates, atold, told


class AscendLLM(Generates, BaseLLM):
    """A model that continues a text: `model=` runs it here, `base_url=` asks a server.

    Any further keyword is an engine setting by vLLM's name; arguments of a single call are vLLM's request fields,
    and `lora="name"` answers with a LoRA adapter that the engine has loaded.

    Example:
        .. code-block:: python

            from langchain_ascend import AscendLLM

            AscendLLM(model="smollm2-135m-instruct", max_tokens=16).invoke("The capital of France is")
    """

    max_tokens: int | None = None
    """The most tokens to generate; None: vLLM's default, which is 16."""
    n: int | None = None
    """How many continuations of each prompt."""
    logprobs: int | None = None
    """Log-probabilities of this many most likely tokens at each place."""

    def __init__(self, **settings: Any) -> None:
        """Raises SettingError or ModelError; nothing is started before the first call."""
        super().__init__(**settings)  # written here for type checkers: they would take the fields for all there is

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """All inputs at once, as one continuous batch of the engine."""
        return run_sync(self.abatch(inputs, config, return_exceptions=return_exceptions, **kwargs))

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """As batch. Each input is a call of its own: with BaseLLM's own form, the error of one is that of all."""
        return await Runnable.abatch(self, inputs, config, return_exceptions=return_exceptions, **kwargs)

    @property
    def _llm_type(self) -> str:
        return "ascend"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._traced(super()._get_ls_params(stop=stop, **kwargs), kwargs)

    def _body(self, prompt: str, stop: list[str] | None, kwargs: dict[str, Any]) -> Body:
        return {"prompt": prompt, **self._settings(stop, kwargs)}

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
        return told(self._backend.complete_stream(self._body(prompt, stop, kwargs)), to_text_chunk, run_manager)

    def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        return atold(self._backend.complete_stream(self._body(prompt, stop, kwargs)), to_text_chunk, run_manager)
