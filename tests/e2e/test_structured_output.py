"""Outputs that must have a form: JSON schemas, regular expressions, choices, grammars, and calls of tools."""

import asyncio
import json
import random
import re

import pytest

from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import RequestError
from tests.conftest import CHAT_MODEL

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

NUM_SCHEMAS = 200
MAX_TOKENS = 80
SETTINGS = {
    "dtype": "float32",
    "max_model_len": 1024,
    "max_num_seqs": 64,
    "enable_auto_tool_choice": True,
    "tool_call_parser": "hermes",
    # A small model would fill its answer with blanks.
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 12}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("get_weather", "get_time")
]
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def structured(engine_of):
    return engine_of(CHAT_MODEL, **SETTINGS)


def random_schema(rng, depth=2):
    """A schema whose instances are short."""
    kinds = ["boolean", "integer", "string", "pattern", "enum", "const", "null"]
    if depth:
        kinds += ["object", "object", "array", "anyOf"]
    kind = rng.choice(kinds)
    if kind == "object":
        names = rng.sample(["name", "age", "city", "tags", "ok"], rng.randint(1, 3))
        required = rng.sample(names, rng.randint(1, len(names)))
        properties = {name: random_schema(rng, depth - 1) for name in names}
        return {"type": kind, "properties": properties, "required": required, "additionalProperties": False}
    if kind == "array":
        fewest = rng.randint(0, 2)
        return {
            "type": kind,
            "items": random_schema(rng, 0),
            "minItems": fewest,
            "maxItems": fewest + rng.randint(0, 2),
        }
    if kind == "anyOf":
        return {"anyOf": [random_schema(rng, depth - 1), {"type": "null"}]}
    if kind == "integer":
        lowest = rng.randint(-50, 50)
        return {"type": kind, "minimum": lowest, "maximum": lowest + rng.randint(0, 1000)}
    return {
        "string": {"type": "string", "maxLength": rng.randint(1, 10)},
        "pattern": {"type": "string", "pattern": f"^[a-z]{{1,{rng.randint(1, 6)}}}-[0-9]{{2}}$"},
        "enum": {"enum": ["red", 7, None, "blue"][: rng.randint(1, 4)]},
        "const": {"const": rng.choice(["x", 3, True])},
    }.get(kind, {"type": kind})


def complete(backend, structured_outputs, **fields):
    body = {"prompt": "An example:\n", "temperature": 0, "max_tokens": MAX_TOKENS, **fields}
    return run_sync(backend.complete({**body, "structured_outputs": structured_outputs}))["choices"][0]


def test_every_finished_answer_to_200_random_schemas_validates(structured):
    import jsonschema

    rng = random.Random(0)
    schemas = [random_schema(rng) for _ in range(NUM_SCHEMAS)]

    async def all_of_them():
        bodies = [
            {
                "prompt": f"JSON that follows the schema {json.dumps(schema)}:\n",
                "temperature": 0.8,
                "seed": number,
                "max_tokens": MAX_TOKENS,
                "structured_outputs": {"json": schema},
            }
            for number, schema in enumerate(schemas)
        ]
        return await asyncio.gather(*(structured.complete(body) for body in bodies))

    answers = [answer["choices"][0] for answer in run_sync(all_of_them())]
    finished = [pair for pair in zip(schemas, answers, strict=True) if pair[1]["finish_reason"] == "stop"]
    for schema, answer in finished:
        jsonschema.validate(json.loads(answer["text"]), schema)
    assert all(answer["finish_reason"] in ("stop", "length") for answer in answers)
    assert len(finished) >= NUM_SCHEMAS // 2, f"{NUM_SCHEMAS - len(finished)} were cut by length"


@pytest.mark.parametrize(
    "schema", [{"type": "no such type"}, {"type": "string", "pattern": "(unclosed"}], ids=["type", "pattern"]
)
def test_a_schema_that_cannot_be_compiled_is_one_clear_error_and_the_engine_serves_on(structured, schema):
    with pytest.raises(RequestError, match=r"(?i)schema|grammar|regex|pattern|type"):
        complete(structured, {"json": schema})
    assert complete(structured, {"choice": ["yes", "no"]})["text"] in ("yes", "no")


def test_a_regular_expression(structured):
    text = complete(structured, {"regex": r"[A-Z]{3}-\d{4}"})["text"]
    assert re.fullmatch(r"[A-Z]{3}-\d{4}", text)


def test_a_choice(structured):
    assert complete(structured, {"choice": ["positive", "negative"]})["text"] in ("positive", "negative")


def test_a_grammar(structured):
    grammar = 'root ::= term " = " term\nterm ::= [0-9] " + " [0-9]'
    assert re.fullmatch(r"\d \+ \d = \d \+ \d", complete(structured, {"grammar": grammar})["text"])


def test_structured_and_free_requests_in_one_batch(structured):
    free = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 8}
    alone = run_sync(structured.complete(free))["choices"][0]["text"]

    async def together():
        bound = {**free, "structured_outputs": {"choice": ["positive", "negative"]}}
        return await asyncio.gather(*(structured.complete(body) for body in (free, bound, free)))

    first, bound, last = (answer["choices"][0]["text"] for answer in run_sync(together()))
    assert first == last == alone
    assert bound in ("positive", "negative")


def chat(backend, tool_choice):
    body = {"messages": QUESTION, "tools": TOOLS, "tool_choice": tool_choice, "temperature": 0, "max_tokens": 200}
    return run_sync(backend.chat(body))["choices"][0]


def test_a_named_tool_is_called_with_arguments_of_its_schema(structured):
    import jsonschema

    choice = chat(structured, {"type": "function", "function": {"name": "get_time"}})
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_time"
    jsonschema.validate(json.loads(call["function"]["arguments"]), TOOLS[1]["function"]["parameters"])


def test_a_required_call_names_one_of_the_tools(structured):
    import jsonschema

    choice = chat(structured, "required")
    if choice["finish_reason"] == "length":  # the grammar lets a model make call after call
        return
    for call in choice["message"]["tool_calls"]:
        assert call["function"]["name"] in ("get_weather", "get_time")
        jsonschema.validate(json.loads(call["function"]["arguments"]), TOOLS[0]["function"]["parameters"])


def test_there_are_no_more_calls_than_were_asked_for(structured):
    """Left alone, this model goes on calling until max_tokens."""
    body = {"messages": QUESTION, "tools": TOOLS, "tool_choice": "required", "temperature": 0, "max_tokens": 200}
    answer = run_sync(structured.chat({**body, "parallel_tool_calls": False}))
    (choice,) = answer["choices"]
    assert len(choice["message"]["tool_calls"]) == 1
    assert answer["usage"]["completion_tokens"] < 200


@pytest.mark.parametrize("tool_choice", [pytest.param("none", marks=pytest.mark.claim), "auto"])
def test_a_model_that_calls_no_tool_answers_in_words(structured, tool_choice):
    message = chat(structured, tool_choice)["message"]
    assert message["content"]
    assert not message.get("tool_calls")
