"""LlamaIndex's tools to OpenAI's, and the calls of them in responses."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatResponse, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.utils import parse_partial_json

from ascend_adapters.errors import RequestError
from ascend_adapters.tool_calls import openai_tool_choice

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool


def tool_fields(
    tools: Sequence["BaseTool"],
    tool_choice: str | dict[str, Any] | None,
    *,
    required: bool,
    parallel: bool,
) -> dict[str, Any]:
    """The fields of a chat's body that say which tools may be called, and how.

    tool_choice  "auto", "none", "required" (or "any"), a tool's name, or OpenAI's form; None: as `required` says
    """
    if not tools:
        return {}
    # OpenAI's limit to the length of a description is not ours.
    specs = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
    fields = {"tools": specs, "parallel_tool_calls": parallel}
    if tool_choice is None and required:
        # Of one tool that is to be called once, the arguments are all there is to generate.
        tool_choice = specs[0]["function"]["name"] if len(specs) == 1 and not parallel else "required"
    if tool_choice is not None:
        fields["tool_choice"] = openai_tool_choice(tool_choice, specs)
    return fields


def tool_selections(response: ChatResponse, *, error_if_none: bool) -> list[ToolSelection]:
    """The calls in `response`; of one that is still streaming, as much as is there.

    Raises RequestError if there is none and that is an error, or for a call whose arguments the model broke.
    """
    calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    if not calls and error_if_none:
        raise RequestError(
            f"the model called no tool, but said {(response.message.content or '')[:200]!r}: give tool_required=True, "
            "which holds it to a call by grammar, or error_on_no_tool_call=False."
        )
    return [
        ToolSelection(tool_id=call.tool_call_id or "", tool_name=call.tool_name, tool_kwargs=_arguments(call, response))
        for call in calls
    ]


def _arguments(call: ToolCallBlock, response: ChatResponse) -> dict[str, Any]:
    if isinstance(call.tool_kwargs, dict):
        return call.tool_kwargs
    if "finish_reason" in response.additional_kwargs:
        raise RequestError(
            f"the model called {call.tool_name} with {call.tool_kwargs[:200]!r}, which is no JSON object: give "
            "tool_required=True or tool_choice, which hold the arguments to the tool's schema by grammar, or use a "
            "larger model."
        )
    try:
        begun = parse_partial_json(call.tool_kwargs or "{}")
    except ValueError:
        return {}
    return begun if isinstance(begun, dict) else {}
