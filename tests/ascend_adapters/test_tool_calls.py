"""Which parser reads a model's calls of tools, and how a choice among them is said."""

import json

import pytest

from ascend_adapters.errors import RequestError
from ascend_adapters.tool_calls import openai_tool_choice, tool_call_settings

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        ("{{ '<tool_call>' }}", "hermes"),
        ("{{ '<tool_call><function=' }}", "qwen3_coder"),
        ("{{ '[TOOL_CALLS]' }}", "mistral"),
        ("{{ messages }}", "hermes"),
    ],
)
@pytest.mark.parametrize("in_config", [False, True])
def test_the_parser_is_read_off_the_chat_template(tmp_path, template, parser, in_config):
    if in_config:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    else:
        (tmp_path / "chat_template.jinja").write_text(template)
    assert tool_call_settings(str(tmp_path)) == {"enable_auto_tool_choice": True, "tool_call_parser": parser}


def test_a_model_without_a_chat_template_has_no_tools(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert tool_call_settings(str(tmp_path)) == {}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("any", "required"),
        ("required", "required"),
        ("weather", {"type": "function", "function": {"name": "weather"}}),
        ({"type": "function", "function": {"name": "rain"}}, {"type": "function", "function": {"name": "rain"}}),
    ],
)
def test_a_choice_is_said_as_openai_has_it(given, sent):
    assert openai_tool_choice(given, [WEATHER]) == sent


def test_a_choice_of_no_tool_is_refused_with_the_tools_there_are():
    with pytest.raises(RequestError, match="tool_choice='rain' is none of the tools: these are weather"):
        openai_tool_choice("rain", [WEATHER])
