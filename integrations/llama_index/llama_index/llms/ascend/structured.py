"""Structured output of LlamaIndex by grammar: the answer is JSON of the class's schema, whatever the model."""

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.instrumentation.events.llm import LLMStructuredPredictEndEvent, LLMStructuredPredictStartEvent
from llama_index.core.llms.llm import LLM
from llama_index.core.output_parsers.pydantic import PydanticOutputParser
from llama_index.core.program.llm_program import LLMTextCompletionProgram
from llama_index.core.program.utils import FlexibleModel
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.types import Model, PydanticProgramMode
from llama_index_instrumentation import get_dispatcher

from ascend_adapters.errors import RequestError

dispatcher = get_dispatcher(__name__)


class StructuredByGrammar(LLM):
    """structured_predict and its asynchronous and streaming forms for a model that takes `response_format`.

    Other values of pydantic_program_mode are core's: FUNCTION asks for a tool's call, LLM says it in words only.
    """

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Core's, which see."""
        if not self._by_grammar():
            result: Model = super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return result
        with _told(output_cls, prompt, prompt_args) as objects:
            objects.append(_program(self, output_cls, prompt)(held_to(output_cls, llm_kwargs), **prompt_args))
        return objects[0]

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Core's, which see."""
        if not self._by_grammar():
            result: Model = await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return result
        with _told(output_cls, prompt, prompt_args) as objects:
            program = _program(self, output_cls, prompt)
            objects.append(await program.acall(held_to(output_cls, llm_kwargs), **prompt_args))
        return objects[0]

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Model | list[Model] | FlexibleModel | list[FlexibleModel], None, None]:
        if not self._by_grammar():
            return super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        program = _program(self, output_cls, prompt)
        return program.stream_call(llm_kwargs=held_to(output_cls, llm_kwargs), **prompt_args)

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Model | list[Model] | FlexibleModel | list[FlexibleModel], None]:
        if not self._by_grammar():
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        program = _program(self, output_cls, prompt)
        return await program.astream_call(llm_kwargs=held_to(output_cls, llm_kwargs), **prompt_args)

    def _by_grammar(self) -> bool:
        return self.pydantic_program_mode == PydanticProgramMode.DEFAULT


def held_to(output_cls: type[Model], llm_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """`llm_kwargs`, and that the answer is JSON of the schema of `output_cls`."""
    schema = {"name": output_cls.__name__, "schema": output_cls.model_json_schema()}
    return {**(llm_kwargs or {}), "response_format": {"type": "json_schema", "json_schema": schema}}


class _SchemaInPrompt(PydanticOutputParser[Model]):
    """Tells the model the schema: the grammar holds its tokens, but does not say what the fields mean."""

    def format(self, query: str) -> str:
        # Core's own doubles all braces, for a template that no longer follows (0.14.25).
        return f"{query}\n\n{self.get_format_string(escape_json=False)}"


def _program(llm: LLM, output_cls: type[Model], prompt: BasePromptTemplate) -> LLMTextCompletionProgram[Model]:
    # A copy: the program leaves its parser in the prompt, which is the caller's.
    return LLMTextCompletionProgram(_SchemaInPrompt(output_cls), output_cls, prompt.partial_format(), llm)


@contextmanager
def _told(output_cls: type[Model], prompt: BasePromptTemplate, prompt_args: dict[str, Any]) -> Iterator[list[Model]]:
    """Core's events around a prediction, which is put into the list that this gives."""
    dispatcher.event(LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args))
    objects: list[Model] = []
    try:
        yield objects
    except RequestError:
        raise
    except ValueError as error:  # pydantic's and the parser's
        raise RequestError(
            f"the answer is no {output_cls.__name__}: {error}. The grammar knows the class's JSON schema only: state "
            "its other rules in the prompt, or ask again."
        ) from error
    dispatcher.event(LLMStructuredPredictEndEvent(output=objects[0]))
