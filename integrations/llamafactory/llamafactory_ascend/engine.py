"""AscendEngine: LLaMA-Factory's interface of inference engines on the contract."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from copy import copy
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llamafactory.chat.base_engine import BaseEngine, Response
from llamafactory.data import get_template_and_fix_tokenizer
from llamafactory.extras import logging
from llamafactory.extras.constants import EngineName
from llamafactory.model import load_config, load_tokenizer

from ascend_adapters.bridge import on_io_loop, run_sync
from ascend_adapters.contract import Answer, Backend, Body
from ascend_adapters.errors import RequestError, SettingError
from ascend_adapters.open import open_backend
from llamafactory_ascend.checks import WEIGHTS, check_arguments
from llamafactory_ascend.generating import request_fields
from llamafactory_ascend.media import Media, Message
from llamafactory_ascend.prompt import Prompt, make_prompt
from llamafactory_ascend.settings import engine_settings

if TYPE_CHECKING:
    from llamafactory.chat.hf_engine import HuggingfaceEngine
    from llamafactory.hparams import DataArguments, FinetuningArguments, GeneratingArguments, ModelArguments

logger = logging.get_logger(__name__)


class AscendEngine(BaseEngine):
    """Prompts are the tokens that LLaMA-Factory's own template makes, as in training; the engine applies no other.

    Adapters go to the engine as they were saved. The first one answers; `adapter=` in a call names another, by the last
    part of its folder, or the base model by "".
    """

    def __init__(
        self,
        model_args: "ModelArguments",
        data_args: "DataArguments",
        finetuning_args: "FinetuningArguments",
        generating_args: "GeneratingArguments",
        backend: Backend | None = None,
    ) -> None:
        """
        backend  the engine itself, in place of the one that model_args asks for

        Raises SettingError or ModelError. An embedded engine starts with the first call, or with start().
        """
        check_arguments(model_args, finetuning_args)
        _check_template(data_args.template)
        self.name = EngineName("ascend")
        self.can_generate = finetuning_args.stage == "sft"
        self._arguments = (model_args, data_args, finetuning_args, generating_args)
        loaded = load_tokenizer(model_args)
        self.tokenizer, self.processor = loaded["tokenizer"], loaded["processor"]
        self.tokenizer.padding_side = "left"
        # A copy: the original is one for all engines of the process, of which others expand the marks of media.
        self.template = copy(get_template_and_fix_tokenizer(self.tokenizer, data_args))
        self.template.mm_plugin = copy(self.template.mm_plugin)
        self.template.mm_plugin.expand_mm_tokens = False
        _check_vocabulary(len(self.tokenizer), load_config(model_args), data_args.template)
        self.generating_args = generating_args.to_dict()
        settings = engine_settings(model_args, takes_media=self.processor is not None)
        self.model = open_backend(**settings) if backend is None else backend
        self._adapters = _named(model_args.adapter_name_or_path or [])
        self._loaded: set[str] = set()
        self._loading = asyncio.Lock()  # of the I/O loop

    def start(self) -> None:
        """Have the engine ready. Raises EngineStartError or ServerError."""
        if self.can_generate:
            run_sync(self.model.info())

    async def chat(
        self,
        messages: list[Message],
        system: str | None = None,
        tools: str | None = None,
        images: list[Any] | None = None,
        videos: list[Any] | None = None,
        audios: list[Any] | None = None,
        **input_kwargs: Any,
    ) -> list[Response]:
        """The answers to `messages`; input_kwargs are generating arguments of this call."""
        prompt = self.prompt(messages, system, tools, images, videos, audios)
        return await self.answer(prompt, **input_kwargs)

    async def stream_chat(
        self,
        messages: list[Message],
        system: str | None = None,
        tools: str | None = None,
        images: list[Any] | None = None,
        videos: list[Any] | None = None,
        audios: list[Any] | None = None,
        **input_kwargs: Any,
    ) -> AsyncGenerator[str, None]:
        """The answer's pieces. Closing it aborts the request."""
        body = await self._body(self.prompt(messages, system, tools, images, videos, audios), input_kwargs)
        if body.get("n", 1) > 1:
            raise RequestError(f"num_return_sequences={body['n']} answers are no one stream: use chat, or ask for one.")
        stream = self.model.complete_stream if "prompt" in body else self.model.chat_stream
        async with aclosing(stream(body)) as chunks:
            async for chunk in chunks:
                for choice in chunk["choices"]:
                    if text := _text(choice, "delta"):
                        yield text

    def prompt(
        self,
        messages: list[Message],
        system: str | None = None,
        tools: str | None = None,
        images: list[Any] | None = None,
        videos: list[Any] | None = None,
        audios: list[Any] | None = None,
    ) -> Prompt:
        """What the template makes of `messages`. Raises RequestError for what it, or the model, does not take."""
        media = Media(images or [], videos or [], audios or [])
        return make_prompt(self.template, self.tokenizer, self.processor, messages, system, tools, media)

    async def answer(self, prompt: Prompt, **input_kwargs: Any) -> list[Response]:
        """The answers to a prompt; input_kwargs as of chat."""
        body = await self._body(prompt, input_kwargs)
        answer = await (self.model.complete(body) if "prompt" in body else self.model.chat(body))
        num_prompt_tokens, num_tokens = (answer["usage"][of] for of in ("prompt_tokens", "completion_tokens"))
        return [
            Response(
                # As LLaMA-Factory's own engine writes its answers.
                response_text=self.tokenizer.clean_up_tokenization(_text(choice, "message")),
                # The usage is of all answers together.
                response_length=num_tokens if len(answer["choices"]) == 1 else self._count(_text(choice, "message")),
                prompt_length=num_prompt_tokens,
                finish_reason="length" if choice["finish_reason"] == "length" else "stop",
            )
            for choice in answer["choices"]
        ]

    async def get_scores(self, batch_input: list[str], **input_kwargs: Any) -> list[float]:
        """Scores of a reward model, by LLaMA-Factory's own engine: vLLM has no models with a value head."""
        scores: list[float] = await self._huggingface.get_scores(batch_input, **input_kwargs)
        return scores

    def adapter_names(self) -> list[str]:
        """What the engine calls the adapters that were given; another name for one that was trained anew."""
        return [_name_in_engine(folder) for folder in self._adapters.values()]

    def close(self) -> None:
        """Stop the embedded engine, unless another uses it."""
        run_sync(self.model.close())

    @cached_property
    def _huggingface(self) -> "HuggingfaceEngine":
        from llamafactory.chat.hf_engine import HuggingfaceEngine

        logger.warning_rank0("Reward models have a value head, which vLLM has not: scored by the huggingface engine.")
        return HuggingfaceEngine(*self._arguments)

    async def _body(self, prompt: Prompt, call: dict[str, Any]) -> Body:
        if not self.can_generate:
            raise RequestError("stage 'rm' is a reward model: it scores, and does not chat. Use stage: sft to chat.")
        adapter = call.pop("adapter", None)
        body = prompt.body(self.tokenizer) | request_fields(self.generating_args, call, len(prompt.token_ids))
        # The template says what ends an answer, and not the model's files, which may be of another template.
        body |= {"stop_token_ids": self.template.get_stop_token_ids(self.tokenizer), "ignore_eos": True}
        if (name := await self._adapter(adapter)) is not None:
            body["model"] = name
        return body

    async def _adapter(self, wanted: str | None) -> str | None:
        """What the engine calls the adapter that is to answer, which it has now; None: the model itself."""
        name = next(iter(self._adapters), "") if wanted is None else wanted
        if not name:
            return None
        if name not in self._adapters:
            there = ", ".join(self._adapters) or "there is none"
            raise RequestError(f"adapter={name!r} is none of those given: {there}.")
        return await self._load(self._adapters[name])

    @on_io_loop
    async def _load(self, folder: str) -> str:
        name = _name_in_engine(folder)
        async with self._loading:  # many first calls come at once
            if name not in self._loaded and name not in (await self.model.info()).loras:
                await self.model.load_lora(name, folder)
            self._loaded.add(name)
        return name

    def _count(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False))


def _text(choice: Answer, kind: Literal["message", "delta"]) -> str:
    """The text of a completion's choice, or of a chat's."""
    return str(choice["text"] if kind not in choice else choice[kind].get("content") or "")


def _check_template(name: str | None) -> None:
    from llamafactory.data.template import TEMPLATES

    if name is not None and name not in TEMPLATES:
        similar = get_close_matches(name, TEMPLATES) or sorted(TEMPLATES)
        raise SettingError(f"template={name!r} is unknown: LLaMA-Factory has {', '.join(similar[:3])}, and others.")


def _check_vocabulary(num_tokens: int, config: Any, template: str | None) -> None:
    """Tokens that get_template_and_fix_tokenizer has added are in the tokenizer, and not in the model."""
    size = getattr(config.get_text_config(), "vocab_size", num_tokens)
    if num_tokens > size:
        raise SettingError(
            f"template={template!r} needs tokens that the model has no embeddings for ({num_tokens} with its {size}): "
            "give the template that the model was trained with, or a model trained with resize_vocab: true."
        )


def _named(folders: list[str]) -> dict[str, str]:
    """The folders by the last part of their paths; by the whole path where two have the same."""
    names = [folder.rstrip("/").rsplit("/", 1)[-1] for folder in folders]
    return {name if names.count(name) == 1 else folder: folder for name, folder in zip(names, folders, strict=True)}


def _name_in_engine(folder: str) -> str:
    """Another object may have loaded an adapter of the same name, and training may write this one anew."""
    weights = Path(folder).absolute() / WEIGHTS
    return f"{weights.parent} of {weights.stat().st_mtime_ns}"
