"""ChatAscend: LangChain's chat model interface on the contract."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig

from ascend_adapters.bridge import iterate_sync, run_sync
from ascend_adapters.contract import Body, EngineInfo
from ascend_adapters.errors import SettingError
from langchain_ascend.answers import to_chat_result, to_generation_chunk
from langchain_ascend.batches import results_as_completed
from langchain_ascend.generating import Generates, atold, told
from langchain_ascend.structured_output import (
    Method,
    Schema,
    parser_of_call,
    parser_of_content,
    response_format,
    with_raw,
)
from langchain_ascend.translate import Tool, to_messages, to_tool_choice, to_tools


class ChatAscend(Generates, BaseChatModel):
    """A chat model on Ascend: `model=` runs it here, `base_url=` asks a server.

    Any further keyword is an engine setting by vLLM's name (dtype, max_model_len, kv_cache_memory_bytes, ...);
    models with the same settings share one engine. Arguments of a single call (`invoke(..., top_k=5)`) are
    vLLM's request fields; `lora="name"` answers with a LoRA adapter that the engine has loaded.

    Example:
        .. code-block:: python

            from langchain_ascend import ChatAscend

            ChatAscend(model="smollm2-135m-instruct").invoke("What is the capital of France?")
    """

    SAMPLING: ClassVar = (*Generates.SAMPLING, "top_logprobs")

    max_tokens: int | None = None
    """The most tokens an answer may have; None: as many as fit the context."""
    n: int | None = None
    """How many answers to generate; `generate` returns them all, `invoke` the first."""
    tool_choice: str | bool | dict[str, Any] | None = None
    """Which tool is to be called where tools are bound without a word of it: see bind_tools."""
    parallel_tool_calls: bool | None = None
    """False: at most one call in an answer, for small models that would go on calling; where tools are bound."""
    streaming: bool = False
    """Whether invoke streams too, for callbacks that want to see every token."""
    logprobs: bool | None = None
    top_logprobs: int | None = None

    def __init__(self, **settings: Any) -> None:
        """Raises SettingError or ModelError; nothing is started before the first call."""
        super().__init__(**settings)  # written here for type checkers: they would take the fields for all there is

    def engine_info(self) -> EngineInfo:
        """The engine behind this model: its device, its longest context. Starts it if need be.

        `profile` then tells what the engine does.
        """
        info = super().engine_info()
        self.profile = {**(self.profile or {}), **_profile_of(info)}
        return info

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Tool] | None = None) -> int:
        """How many tokens a prompt of these messages has, by the model's own chat template."""
        body: Body = {"messages": to_messages(messages)}
        return len(self._tokens_of({**body, "tools": to_tools(tools)} if tools else body))

    def bind_tools(
        self,
        tools: Sequence[Tool],
        *,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """This model with tools that it may call.

        tool_choice          "auto", "none", "any" (also True, "required"), or a tool's name. A grammar holds the
                             model to a choice that is forced.
        parallel_tool_calls  False: at most one call; None: as the model's own setting

        Raises RequestError for a tool_choice that is none of the tools.
        """
        bodies = to_tools(tools, strict=strict)
        bound: Body = {"tools": bodies} if bodies else {}
        choice = to_tool_choice(self.tool_choice if tool_choice is None else tool_choice, bodies)
        if bodies and choice is not None:
            bound["tool_choice"] = choice
        parallel = self.parallel_tool_calls if parallel_tool_calls is None else parallel_tool_calls
        if bodies and parallel is not None:
            bound["parallel_tool_calls"] = parallel
        return self.bind(**bound, **kwargs)

    def with_structured_output(
        self,
        schema: Schema | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """This model with answers of `schema`: a pydantic class, a TypedDict, or a JSON schema.

        method       "json_schema" and "function_calling" hold the model to the schema by a grammar; so does
                     "json_mode" where a schema is given, and without one any JSON object will do
        include_raw  give {"raw", "parsed", "parsing_error"} instead of raising on what cannot be read

        Raises SettingError without a schema where there must be one, or for an unknown method.
        """
        if method not in ("json_schema", "function_calling", "json_mode"):
            raise SettingError(f"method={method!r} is unknown: use 'json_schema', 'function_calling' or 'json_mode'.")
        if schema is None and method != "json_mode":
            raise SettingError(f"method={method!r} needs a schema: give one, or use method='json_mode'.")
        shown: dict[str, Any] = {
            "ls_structured_output_format": {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        }
        if method == "function_calling" and schema is not None:
            (tool,) = to_tools([schema], strict=strict)
            name = tool["function"]["name"]
            model = self.bind_tools([tool], tool_choice=name, parallel_tool_calls=False, **shown, **kwargs)
            parser = parser_of_call(schema, name)
        else:
            model = self.bind(response_format=response_format(schema), **shown, **kwargs)
            parser = parser_of_content(schema)
        return with_raw(model, parser) if include_raw else model | parser

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

    def batch_as_completed(  # type: ignore[override]  # core's overloads differ in return_exceptions only
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, AIMessage | Exception]]:
        """As batch, each answer with its place among the inputs as soon as it is there."""
        done = results_as_completed(self, inputs, config, return_exceptions=return_exceptions, **kwargs)
        yield from iterate_sync(done)

    @property
    def _llm_type(self) -> str:
        return "ascend-chat"

    def _resolve_model_profile(self) -> ModelProfile | None:
        """What holds for every engine; the rest is known once it runs: see engine_info."""
        return {"text_inputs": True, "text_outputs": True, "temperature": True, "structured_output": True}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._traced(super()._get_ls_params(stop=stop, **kwargs), kwargs)

    def _body(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> Body:
        return {"messages": to_messages(messages), **self._settings(stop, kwargs)}

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
        return told(self._backend.chat_stream(self._body(messages, stop, kwargs)), to_generation_chunk, run_manager)

    def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        return atold(self._backend.chat_stream(self._body(messages, stop, kwargs)), to_generation_chunk, run_manager)


def _profile_of(info: EngineInfo) -> ModelProfile:
    profile: ModelProfile = {
        "name": info.model,
        "tool_calling": info.tool_call_parser is not None,
        "tool_choice": info.tool_call_parser is not None,
        "reasoning_output": info.reasoning_parser is not None,
    }
    if info.max_model_len is not None:
        profile["max_input_tokens"] = info.max_model_len
    if info.modalities is not None:
        profile["image_inputs"] = profile["image_url_inputs"] = "image" in info.modalities
        profile["audio_inputs"] = "audio" in info.modalities
        profile["video_inputs"] = "video" in info.modalities
    return profile
