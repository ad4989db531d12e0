"""Ascend: LlamaIndex's interface of function calling language models on the contract."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import Field
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW, DEFAULT_NUM_OUTPUTS
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.llms.ascend.answers import (
    StreamedChat,
    StreamedCompletion,
    to_chat_response,
    to_completion_response,
)
from llama_index.llms.ascend.messages import to_openai_messages
from llama_index.llms.ascend.on_ascend import OnAscend
from llama_index.llms.ascend.structured import StructuredByGrammar
from llama_index.llms.ascend.tools import tool_fields, tool_selections

from ascend_adapters.bridge import iterate_sync, run_sync
from ascend_adapters.contract import Answer, Body, EngineInfo
from ascend_adapters.requests import merged

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

Response = TypeVar("Response")
SAMPLING = ("temperature", "top_p", "max_tokens", "stop", "seed", "logprobs", "top_logprobs", "lora")


class Ascend(OnAscend, StructuredByGrammar, FunctionCallingLLM):
    """A language model on Ascend: `model=` runs it here, `base_url=` asks a server.

    Any further keyword is an engine setting by vLLM's name (dtype, max_model_len, kv_cache_memory_bytes, ...);
    models with the same settings share one engine. Arguments of a single call (`chat(..., top_k=5)`) are vLLM's
    request fields; `lora="name"` asks an adapter that the engine has loaded.

    `complete` asks a chat model with one user message, as LlamaIndex has it; `complete(..., formatted=True)` continues
    the text itself. Structured output is held to its schema by a grammar.

    Example:
        ```python
        from llama_index.llms.ascend import Ascend

        Ascend(model="smollm2-135m-instruct").complete("What is the capital of France?")
        ```
    """

    temperature: float | None = Field(
        default=None, description="0: the most likely token; None: what the model's own files say, else 1."
    )
    top_p: float | None = None
    max_tokens: int | None = Field(
        default=None, description="The most tokens an answer may have; None: as many as fit the context."
    )
    stop: list[str] | None = Field(default=None, description="Texts that end an answer.")
    seed: int | None = Field(default=None, description="The same seed gives the same answer.")
    logprobs: bool | None = None
    top_logprobs: int | None = None
    lora: str | None = Field(default=None, description="The LoRA adapter that answers, by its name in the engine.")
    additional_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Further request fields by vLLM's names, for every call: top_k, min_p, ..."
    )
    is_chat_model: bool | None = Field(default=None, description="None: as the engine says.")
    is_function_calling_model: bool | None = Field(
        default=None, description="False makes LlamaIndex ask for tools and structures in words; None: a chat model is."
    )

    def __init__(self, **settings: Any) -> None:
        """Raises SettingError or ModelError; nothing is started before the first call."""
        # Written here for type checkers: they would take the fields for all there is.
        super().__init__(**settings)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises it."""
        return "Ascend"

    @property
    def metadata(self) -> LLMMetadata:
        """What the engine says of its model. Starts it if need be."""
        return self._metadata(self._known())

    @property
    def tokenizer(self) -> Callable[[str], list[int]]:
        """The model's own: `Settings.tokenizer = llm.tokenizer`."""
        return self._token_ids

    def to_payload(self) -> dict[str, Any]:
        """What events tell of this model. Starts no engine: events come before a call, also of asynchronous ones."""
        told = self._metadata(self._info).model_dump() if self._info else {"model_name": self.model or self.base_url}
        return {"class_name": self.class_name(), **told, **self._sampling()}

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """One answer to `messages`."""
        return to_chat_response(run_sync(self._backend.chat(self._chat_body(messages, kwargs))))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """One answer to `messages`."""
        return to_chat_response(await self._backend.chat(self._chat_body(messages, kwargs)))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer as it grows; the last response has the usage."""
        return _each(self._backend.chat_stream(self._chat_body(messages, kwargs)), StreamedChat().add)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """The answer as it grows; the last response has the usage."""
        return _aeach(self._backend.chat_stream(self._chat_body(messages, kwargs)), StreamedChat().add)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to `prompt`, or with `formatted` its continuation."""
        return to_completion_response(run_sync(self._answer(self._complete_body(prompt, formatted, kwargs))))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to `prompt`, or with `formatted` its continuation."""
        await self._aknown()
        return to_completion_response(await self._answer(self._complete_body(prompt, formatted, kwargs)))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The answer to `prompt` as it grows, or with `formatted` its continuation."""
        return _each(self._chunks(self._complete_body(prompt, formatted, kwargs)), StreamedCompletion().add)

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """The answer to `prompt` as it grows, or with `formatted` its continuation."""
        await self._aknown()
        return _aeach(self._chunks(self._complete_body(prompt, formatted, kwargs)), StreamedCompletion().add)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls of tools in `response`.

        Raises RequestError if there is none, unless error_on_no_tool_call=False, or if the model broke one.
        """
        return tool_selections(response, error_if_none=error_on_no_tool_call)

    def _prepare_chat_with_tools(
        self,
        tools: Sequence["BaseTool"],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        asked = ChatMessage(role=MessageRole.USER, content=user_msg) if isinstance(user_msg, str) else user_msg
        fields = tool_fields(tools, tool_choice, required=tool_required, parallel=allow_parallel_tool_calls)
        return {"messages": [*(chat_history or []), *([asked] if asked else [])], **fields, **kwargs}

    def _metadata(self, info: EngineInfo) -> LLMMetadata:
        is_chat_model = info.tasks is None or "chat" in info.tasks if self.is_chat_model is None else self.is_chat_model
        calls_functions = self.is_function_calling_model
        return LLMMetadata(
            context_window=info.max_model_len or DEFAULT_CONTEXT_WINDOW,
            num_output=self.max_tokens or DEFAULT_NUM_OUTPUTS,
            is_chat_model=is_chat_model,
            is_function_calling_model=is_chat_model if calls_functions is None else calls_functions,
            model_name=info.model,
        )

    def _token_ids(self, text: str) -> list[int]:
        # Without those that begin a prompt: LlamaIndex counts the tokens of pieces.
        tokens: list[int] = run_sync(self._backend.tokenize({"prompt": text, "add_special_tokens": False}))["tokens"]
        return tokens

    def _sampling(self) -> dict[str, Any]:
        given = {name: value for name in SAMPLING if (value := getattr(self, name)) is not None}
        return {**given, **self.additional_kwargs}

    def _settings(self, kwargs: dict[str, Any]) -> Body:
        return merged(self._sampling(), kwargs)

    def _chat_body(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> Body:
        return {"messages": to_openai_messages(messages), **self._settings(kwargs)}

    def _complete_body(self, prompt: str, formatted: bool, kwargs: dict[str, Any]) -> Body:
        if not formatted and self.metadata.is_chat_model:
            return self._chat_body([ChatMessage(role=MessageRole.USER, content=prompt)], kwargs)
        settings = self._settings(kwargs)
        if settings.get("logprobs") is True:  # a chat's fields; a completion has their number in one
            settings["logprobs"] = settings.pop("top_logprobs", None) or 1
        if not formatted and self.completion_to_prompt is not None:
            prompt = self.completion_to_prompt(prompt)
        return {"prompt": prompt, **settings}

    def _answer(self, body: Body) -> Coroutine[Any, Any, Answer]:
        return self._backend.chat(body) if "messages" in body else self._backend.complete(body)

    def _chunks(self, body: Body) -> AsyncGenerator[Answer, None]:
        return self._backend.chat_stream(body) if "messages" in body else self._backend.complete_stream(body)


def _each(
    stream: AsyncGenerator[Answer, None], translate: Callable[[Answer], Response]
) -> Generator[Response, None, None]:
    with closing(iterate_sync(stream)) as chunks:
        for chunk in chunks:
            yield translate(chunk)


async def _aeach(
    stream: AsyncGenerator[Answer, None], translate: Callable[[Answer], Response]
) -> AsyncGenerator[Response, None]:
    # Not left to the garbage collector: closing aborts the request and frees its KV blocks.
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            yield translate(chunk)
