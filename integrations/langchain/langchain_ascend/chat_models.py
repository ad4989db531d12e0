"""ChatAscend: LangChain's chat model interface on the contract."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from ascend_adapters.bridge import iterate_sync, run_sync
from ascend_adapters.contract import Backend, EngineInfo
from ascend_adapters.errors import SettingError
from langchain_ascend.translate import to_chat_body, to_chat_result, to_generation_chunk


class ChatAscend(BaseChatModel):
    """A chat model on Ascend: `model=` runs it here, `base_url=` asks a server.

    Any further keyword is an engine setting by vLLM's name (dtype, max_model_len, kv_cache_memory_bytes, ...);
    models with the same settings share one engine. Arguments of a single call (`invoke(..., top_k=5)`) are
    vLLM's request fields.

    Example:
        .. code-block:: python

            from langchain_ascend import ChatAscend

            ChatAscend(model="smollm2-135m-instruct").invoke("What is the capital of France?")
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, arbitrary_types_allowed=True)

    model: str | None = None
    """A name that `ascend-adapters models list` shows, a Hugging Face folder, a hub id, or the server's name for it."""
    base_url: str | None = None
    """An OpenAI-compatible server, such as http://127.0.0.1:8000; None: an engine of this process."""
    api_key: SecretStr | None = None
    """What the server wants to see; None: the environment variable ASCEND_API_KEY."""
    timeout: float | None = None
    """Seconds until an answer, or until the next chunk of a stream; None: no limit."""
    temperature: float | None = None
    """0: the most likely token; None: what the model's own files say, else 1."""
    top_p: float | None = None
    max_tokens: int | None = None
    """The most tokens an answer may have; None: as many as fit the context."""
    stop: list[str] | None = None
    """Texts that end an answer."""
    seed: int | None = None
    """The same seed gives the same answer."""
    logprobs: bool | None = None
    top_logprobs: int | None = None
    engine_settings: dict[str, Any] = Field(default_factory=dict)
    """The engine's settings; keywords that are no field of this class end up here."""
    backend: Backend | None = Field(default=None, exclude=True)
    """The engine itself, in place of model and base_url: to share one, or a FakeBackend in tests."""

    _backend: Backend = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _collect_engine_settings(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        settings = {name: value for name, value in given.items() if name not in cls.model_fields}
        rest = {name: value for name, value in given.items() if name in cls.model_fields}
        return {**rest, "engine_settings": {**rest.get("engine_settings", {}), **settings}}

    def __init__(self, **settings: Any) -> None:
        """Raises SettingError or ModelError; nothing is started before the first call."""
        super().__init__(**settings)
        # Here and not in a validator: pydantic would bury the error in a ValidationError.
        self._backend = self._open_backend() if self.backend is None else self.backend
        if self.backend is not None:
            self._refuse_what_a_backend_settles()

    def close(self) -> None:
        """Stop the embedded engine, unless another uses it, or close the connections to the server.

        A later call opens them again.
        """
        run_sync(self._backend.close())

    def _refuse_what_a_backend_settles(self) -> None:
        names = [name for name in ("model", "base_url", "api_key", "timeout") if getattr(self, name) is not None]
        if unused := [*names, *self.engine_settings]:
            raise SettingError(f"{', '.join(unused)}: of no effect beside backend=, which is the engine itself.")

    def engine_info(self) -> EngineInfo:
        """The engine behind this model: its device, its longest context. Starts it if need be."""
        return run_sync(self._backend.info())

    def _open_backend(self) -> Backend:
        from ascend_adapters.open import open_backend

        return open_backend(
            self.model,
            self.base_url,
            api_key=self.api_key.get_secret_value() if self.api_key else None,
            timeout=self.timeout,
            **self.engine_settings,
        )

    @property
    def _llm_type(self) -> str:
        return "ascend-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "base_url": self.base_url, **self.engine_settings, **self._sampling()}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        return LangSmithParams(**{**params, "ls_provider": "ascend", "ls_model_name": self.model or ""})

    def _sampling(self) -> dict[str, Any]:
        names = ("temperature", "top_p", "max_tokens", "stop", "seed", "logprobs", "top_logprobs")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _body(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        call = {**kwargs, "stop": stop} if stop is not None else kwargs
        return to_chat_body(messages, {**self._sampling(), **call})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return to_chat_result(run_sync(self._backend.chat(self._body(messages, stop, kwargs))))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return to_chat_result(await self._backend.chat(self._body(messages, stop, kwargs)))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for body in iterate_sync(self._backend.chat_stream(self._body(messages, stop, kwargs))):
            chunk = to_generation_chunk(body)
            if run_manager and chunk.text:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        stream = self._backend.chat_stream(self._body(messages, stop, kwargs))
        try:
            async for body in stream:
                chunk = to_generation_chunk(body)
                if run_manager and chunk.text:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        finally:
            # Not left to the garbage collector: closing aborts the request and frees its KV blocks.
            await stream.aclose()

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """All inputs at once, as one continuous batch of the engine: core's own would use a few threads."""
        return run_sync(self.abatch(inputs, config, return_exceptions=return_exceptions, **kwargs))
