"""Calls of tools: how a choice is said, and which parser reads calls out of a model's text."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ascend_adapters.contract import Body
from ascend_adapters.errors import RequestError

# What a chat template holds -> vLLM's name of the parser for such calls; the first that is found counts.
# Source: docs/features/tool_calling.md of vLLM 0.23, and the templates of the models named there.
PARSERS = {
    "tool▁calls▁begin": "deepseek_v3",
    "<|tool_calls_section_begin|>": "kimi_k2",
    "<minimax:tool_call>": "minimax_m2",
    "<function=": "qwen3_coder",
    "<arg_key>": "glm45",
    "[TOOL_CALLS]": "mistral",
    "<|python_tag|>": "llama3_json",
    "functools[": "phi4_mini_json",
    "<|tool_call|>": "granite",
    "<tool_call>": "hermes",
}
# Calls that are forced are held to JSON by a grammar, whatever the parser: any will do for a model without tools.
OTHER_PARSER = "hermes"
CHOICES = {"auto": "auto", "none": "none", "required": "required", "any": "required"}


def openai_tool_choice(choice: str | Mapping[str, Any], tools: Sequence[Body]) -> str | Body:
    """A framework's word for which of `tools` may be called, as OpenAI's API has it; a tool's name is that tool.

    Raises RequestError for a name that is none of `tools`.
    """
    if not isinstance(choice, str):
        return dict(choice)
    if choice in CHOICES:
        return CHOICES[choice]
    names = [tool["function"]["name"] for tool in tools]
    if choice not in names:
        raise RequestError(
            f"tool_choice={choice!r} is none of the tools: these are {', '.join(names)}. "
            f"Or use {', '.join(map(repr, CHOICES))}."
        )
    return {"type": "function", "function": {"name": choice}}


def tool_call_settings(model: str) -> dict[str, Any]:
    """Settings of an engine of `model`, a folder or a hub id, with which its tools can be called."""
    templates = _chat_templates(Path(model)) if Path(model).is_dir() else "{# on the hub #}"
    if not templates:
        return {}  # not a chat model
    parser = next((name for sign, name in PARSERS.items() if sign in templates), OTHER_PARSER)
    return {"enable_auto_tool_choice": True, "tool_call_parser": parser}


def _chat_templates(folder: Path) -> str:
    texts = [file.read_text() for file in [*folder.glob("chat_template*"), *folder.glob("chat_templates/*")]]
    config = folder / "tokenizer_config.json"
    templates = json.loads(config.read_text()).get("chat_template") if config.is_file() else None
    return "\n".join([*texts, json.dumps(templates, ensure_ascii=False)] if templates else texts)
