"""The classes that the features are run on, and how each is made with its best known settings."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tests import thinking
from tests.integrations.features.subject import LORA, MAX_TOKENS, Feature, NotRunError, Subject

GREEDY = {"temperature": 0, "max_tokens": MAX_TOKENS}
THINKING = {"max_tokens": thinking.MAX_TOKENS, "fields": thinking.FIELDS}
DOES, NOT_RUN = "yes", "not run"
Where = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a feature."""

    cell: str  # DOES, "no" or NOT_RUN
    why: str = ""


def outcomes(features: dict[str, Feature], subject: Subject) -> dict[str, Outcome]:
    """Of each feature."""
    return {name: _outcome(check, subject) for name, check in features.items()}


def _outcome(check: Feature, subject: Subject) -> Outcome:
    try:
        check(subject)
    except NotRunError as error:
        return Outcome(NOT_RUN, str(error))
    except AssertionError as error:
        return Outcome("no", str(error).partition("\n")[0])
    except Exception as error:  # of any maker's class
        return Outcome("no", f"{type(error).__name__}: {error}".partition("\n")[0])
    return Outcome(DOES)


def chat_ascend(engine: Any, where: Where, where_it_thinks: Where) -> Subject:
    """ChatAscend on the embedded engine, or on the server, that both `engine` and `where` are."""
    from langchain_ascend import ChatAscend

    def make(where: Where = where, fields: dict[str, Any] | None = None, **settings: Any) -> ChatAscend:
        return ChatAscend(**where, **{**GREEDY, **settings}, extra_body=fields)

    return _on_backend(engine, make, lambda model: model.bind(lora=LORA), lambda: make(where_it_thinks, **THINKING))


def ascend(engine: Any, where: Where, where_it_thinks: Where) -> Subject:
    """LlamaIndex's Ascend, as chat_ascend."""
    from llama_index.llms.ascend import Ascend

    def make(where: Where = where, fields: dict[str, Any] | None = None, **settings: Any) -> Ascend:
        return Ascend(**where, **{**GREEDY, **settings}, additional_kwargs=fields or {})

    def with_lora(llm: Ascend) -> Ascend:
        return llm.model_copy(update={"lora": LORA})

    return _on_backend(engine, make, with_lora, lambda: make(where_it_thinks, **THINKING))


def _on_backend(engine: Any, make: Callable[..., Any], *more: Callable[..., Any]) -> Subject:
    from ascend_adapters.bridge import run_sync

    def num_tokens(text: str) -> int:
        return int(run_sync(engine.tokenize({"prompt": text, "add_special_tokens": False}))["count"])

    return Subject(make, lambda: _requests_in(run_sync(engine.metrics())), num_tokens, *more)


def chat_openai(where: Where, where_it_thinks: Where) -> Subject:
    """langchain-openai's class on our server; where: base_url, api_key, model."""
    from langchain_openai import ChatOpenAI

    def make(where: Where = where, fields: dict[str, Any] | None = None, **settings: Any) -> ChatOpenAI:
        ours = {**where, "base_url": f"{where['base_url']}/v1", "stream_usage": True}
        # Its default, two retries, would hide a time-out; its own client is one for all, and dies with an event loop.
        ours |= {"max_retries": 0, "http_async_client": httpx.AsyncClient()}
        return ChatOpenAI(**ours, **{**GREEDY, **settings}, extra_body=fields)

    return _on_server(where, make, lambda model: model.bind(model=LORA), lambda: make(where_it_thinks, **THINKING))


def openai_like(where: Where, where_it_thinks: Where) -> Subject:
    """llama-index-llms-openai-like's class on our server, as chat_openai."""
    from llama_index.llms.openai_like import OpenAILike

    def make(where: Where = where, fields: dict[str, Any] | None = None, **settings: Any) -> OpenAILike:
        own = {name: settings.pop(name) for name in list(settings) if name in OpenAILike.model_fields}
        return OpenAILike(
            model=where["model"],
            api_base=f"{where['base_url']}/v1",
            api_key=where["api_key"],
            is_chat_model=True,
            is_function_calling_model=True,
            should_use_structured_outputs=True,
            max_retries=0,
            **{**GREEDY, **own},
            additional_kwargs={**settings, **({"extra_body": fields} if fields else {})},
        )

    def with_lora(llm: OpenAILike) -> OpenAILike:
        return llm.model_copy(update={"model": LORA})

    return _on_server(where, make, with_lora, lambda: make(where_it_thinks, **THINKING))


def _on_server(where: Where, make: Callable[..., Any], *more: Callable[..., Any]) -> Subject:
    headers = {"Authorization": f"Bearer {where['api_key']}"}
    client = httpx.Client(base_url=where["base_url"], headers=headers, trust_env=False)

    def num_tokens(text: str) -> int:
        body = {"model": where["model"], "prompt": text, "add_special_tokens": False}
        return int(client.post("/tokenize", json=body).json()["count"])

    return Subject(make, lambda: _requests_in(client.get("/metrics").text), num_tokens, *more)


def chat_hugging_face(folder: str) -> Subject:
    """langchain-huggingface's class on transformers' pipeline in this process."""
    import torch
    from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    running = _count_prompts(model)

    def make(fields: dict[str, Any] | None = None, **settings: Any) -> ChatHuggingFace:
        sampling = {**GREEDY, **settings}
        temperature, max_tokens = sampling.pop("temperature"), sampling.pop("max_tokens")
        random = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        generate = pipeline(
            "text-generation",
            model=model,
            tokenizer=tokenizer,
            return_full_text=False,
            max_new_tokens=max_tokens,
            **random,
            **{name: value for name, value in (fields or {}).items() if name != "ignore_eos"},
        )
        return ChatHuggingFace(llm=HuggingFacePipeline(pipeline=generate, batch_size=32), **sampling)

    return Subject(make, running, lambda text: len(tokenizer(text, add_special_tokens=False).input_ids))


def _count_prompts(model: Any) -> Callable[[], int]:
    """How many prompts `model` generates for now."""
    batches: list[int] = []
    generate = model.generate

    def counted(*args: Any, **kwargs: Any) -> Any:
        batches.append(len(kwargs.get("input_ids", args[0] if args else [()])))
        try:
            return generate(*args, **kwargs)
        finally:
            batches.pop()

    model.generate = counted
    return lambda: sum(batches)


def _requests_in(metrics: str) -> int:
    counts = re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*?\} (\S+)", metrics, re.MULTILINE)
    return int(sum(map(float, counts)))
