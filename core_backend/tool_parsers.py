"""vLLM's tool parsers with a grammar of forced calls that ends: `hermes` here is vLLM's `hermes`, bounded.

vLLM (0.23) lets tool_choice "required" generate any number of calls, and only drops what is too many afterwards: a
small model goes on until max_tokens.
"""

from functools import cache
from typing import Any

from vllm.tool_parsers import ToolParser, ToolParserManager

MAX_CALLS = 16  # in one answer; parallel_tool_calls=false: 1

_vllms: dict[str, tuple[str, str]] = {}  # vLLM's own parsers: name -> module, class


class BoundedCalls(ToolParser):
    """A parser whose grammar for tool_choice "required" has at most so many calls as were asked for."""

    def adjust_request(self, request: Any) -> Any:
        request = super().adjust_request(request)
        outputs = getattr(request, "structured_outputs", None)
        if request.tool_choice == "required" and outputs is not None and isinstance(outputs.json, dict):
            several = getattr(request, "parallel_tool_calls", None) is not False
            outputs.json["maxItems"] = MAX_CALLS if several else 1
        return request


def register_tool_parsers() -> None:
    """Put ours in the place of each of vLLM's parsers. Does nothing the second time."""
    for name, where in ToolParserManager.lazy_parsers.items():
        if where[0] != __name__:
            _vllms[name] = where
            ToolParserManager.register_lazy_module(name, __name__, name)


@cache
def __getattr__(name: str) -> type[ToolParser]:
    if name not in _vllms:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, class_name = _vllms[name]
    base: type[ToolParser] = getattr(import_module(module), class_name)
    return type(f"Bounded{class_name}", (BoundedCalls, base), {})
