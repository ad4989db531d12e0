"""Answers that have a form: what a request asks for, and the parser of what comes back."""

from operator import itemgetter
from typing import Any, Literal

from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import BaseOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import TypeBaseModel, is_basemodel_subclass

from ascend_adapters.contract import Body

Schema = dict[str, Any] | type
Method = Literal["json_schema", "function_calling", "json_mode"]


def response_format(schema: Schema | None) -> Body:
    """The response_format of a request: any JSON object, or one of `schema`. A grammar holds the model to it."""
    if schema is None:
        return {"type": "json_object"}
    json_schema = convert_to_json_schema(schema)
    name = json_schema.get("title", "answer")
    return {"type": "json_schema", "json_schema": {"name": name, "schema": json_schema, "strict": True}}


def parser_of_content(schema: Schema | None) -> BaseOutputParser[Any]:
    """Reads an answer's text: into the pydantic class if `schema` is one, else into a dict."""
    if (model := _pydantic(schema)) is not None:
        return PydanticOutputParser(pydantic_object=model)
    return JsonOutputParser()


def parser_of_call(schema: Schema, name: str) -> BaseOutputParser[Any]:
    """Reads the arguments of a call of the tool `name` that was made of `schema`."""
    if (model := _pydantic(schema)) is not None:
        return PydanticToolsParser(tools=[model], first_tool_only=True)
    return JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)


def with_raw(model: Runnable[Any, AIMessage], parser: BaseOutputParser[Any]) -> Runnable[Any, Any]:
    """Gives {"raw": the message, "parsed": what was read, "parsing_error": why nothing could be read}."""
    parse = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parse.with_fallbacks([failed], exception_key="parsing_error")


def _pydantic(schema: Schema | None) -> TypeBaseModel | None:
    return schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
