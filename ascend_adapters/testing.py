"""A backend without a model, for tests and examples. It keeps the contract, and answers what it is told to.

One character is one token, its code point the token's id. It passes the same conformance suite as the real
backends (tests/ascend_adapters/test_conformance.py).
"""

import asyncio
import itertools
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from ascend_adapters.contract import Answer, Body, EngineInfo
from ascend_adapters.errors import RequestError
from ascend_adapters.requests import check_chat, check_complete

Reply = str | Callable[[str], str]
EMBEDDING_SIZE = 64


class FakeBackend:
    """Answers with `reply`: a text, or a function of the prompt."""

    def __init__(
        self,
        reply: Reply = lambda prompt: f"You said: {prompt}",
        *,
        model: str = "fake",
        max_model_len: int = 4096,
        modalities: Sequence[str] = ("text",),
        seconds_per_token: float = 0.0,
    ) -> None:
        self.model = model
        self.max_model_len = max_model_len
        self.modalities = tuple(modalities)
        self.bodies: list[Body] = []  # what was asked, in order
        self._reply = reply
        self._seconds_per_token = seconds_per_token
        self._loras: dict[str, str] = {}
        self._ids = itertools.count(1)

    async def info(self) -> EngineInfo:
        return EngineInfo(
            self.model,
            self.max_model_len,
            "none (answers are made up)",
            loras=tuple(self._loras),
            modalities=self.modalities,
        )

    async def chat(self, body: Body) -> Answer:
        self._check(body)
        prompt = _last_text(body["messages"])
        choices = [
            {"index": i, "message": {"role": "assistant", "content": text}, **rest}
            for i, text, rest in await self._choices(body, prompt)
        ]
        return self._answer("chat.completion", choices, prompt, [c["message"]["content"] for c in choices])

    async def chat_stream(self, body: Body) -> AsyncGenerator[Answer, None]:
        self._check(body)
        prompt = _last_text(body["messages"])
        async for chunk in self._stream(
            "chat.completion.chunk", body, prompt, lambda text: {"delta": {"content": text}}
        ):
            yield chunk

    async def complete(self, body: Body) -> Answer:
        check_complete(body)
        prompt = _as_text(body["prompt"])
        choices = [{"index": i, "text": text, **rest} for i, text, rest in await self._choices(body, prompt)]
        return self._answer("text_completion", choices, prompt, [str(choice["text"]) for choice in choices])

    async def complete_stream(self, body: Body) -> AsyncGenerator[Answer, None]:
        check_complete(body)
        async for chunk in self._stream("text_completion", body, _as_text(body["prompt"]), lambda text: {"text": text}):
            yield chunk

    async def embed(self, body: Body) -> Answer:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        data = [{"object": "embedding", "index": i, "embedding": _embedding(text)} for i, text in enumerate(texts)]
        num_tokens = sum(map(len, texts))
        usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
        return {"object": "list", "model": self.model, "data": data, "usage": usage}

    async def score(self, body: Body) -> Answer:
        texts = [body["text_2"]] if isinstance(body["text_2"], str) else body["text_2"]
        scores = [_similarity(body["text_1"], text) for text in texts]
        return {"object": "list", "data": [{"index": i, "score": score} for i, score in enumerate(scores)]}

    async def rerank(self, body: Body) -> Answer:
        scores = [_similarity(body["query"], text) for text in body["documents"]]
        ranked = sorted(enumerate(scores), key=lambda item: -item[1])[: body.get("top_n")]
        return {"model": self.model, "results": [{"index": i, "relevance_score": score} for i, score in ranked]}

    async def tokenize(self, body: Body) -> Answer:
        text = body["prompt"] if "prompt" in body else _last_text(body["messages"])
        return {"count": len(text), "max_model_len": self.max_model_len, "tokens": [ord(c) for c in text]}

    async def load_lora(self, name: str, path: str) -> None:
        self._loras[name] = path

    async def unload_lora(self, name: str) -> None:
        if name not in self._loras:
            raise RequestError(f"LoRA adapter {name!r} is not loaded: loaded are {sorted(self._loras)}.")
        del self._loras[name]

    async def close(self) -> None:
        """Holds nothing."""

    def _check(self, body: Body) -> None:
        check_chat(body)
        for kind in sorted(_kinds_of_parts(body["messages"])):
            if kind not in self.modalities:
                raise RequestError(f"{self.model} is not a multimodal model that takes {kind}: send text only.")

    async def _choices(self, body: Body, prompt: str) -> list[tuple[int, str, dict[str, Any]]]:
        text, finish_reason = self._generate(body, prompt)
        await asyncio.sleep(self._seconds_per_token * len(text))
        rest = {"finish_reason": finish_reason, "logprobs": _logprobs(text) if body.get("logprobs") else None}
        return [(i, text, rest) for i in range(body.get("n") or 1)]

    async def _stream(
        self, kind: str, body: Body, prompt: str, piece: Callable[[str], Body]
    ) -> AsyncGenerator[Answer, None]:
        text, finish_reason = self._generate(body, prompt)
        head = self._head(kind)
        for i, character in enumerate(text):
            await asyncio.sleep(self._seconds_per_token)
            last = i == len(text) - 1
            for index in range(body.get("n") or 1):
                choice = {"index": index, **piece(character), "finish_reason": finish_reason if last else None}
                if body.get("logprobs"):
                    choice["logprobs"] = _logprobs(character)
                yield {**head, "choices": [choice]}
        yield {**head, "choices": [], "usage": _usage(prompt, [text])}

    def _generate(self, body: Body, prompt: str) -> tuple[str, str]:
        self.bodies.append(body)
        if len(prompt) >= self.max_model_len:
            raise RequestError(f"the prompt has {len(prompt)} tokens, the context {self.max_model_len}: shorten it.")
        text = self._reply if isinstance(self._reply, str) else self._reply(prompt)
        stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        text = text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or self.max_model_len - len(prompt)
        return (text, "stop") if len(text) <= limit else (text[:limit], "length")

    def _answer(self, kind: str, choices: list[dict[str, Any]], prompt: str, texts: Sequence[str]) -> Answer:
        return {**self._head(kind), "choices": choices, "usage": _usage(prompt, texts)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"fake-{next(self._ids)}", "object": kind, "created": 0, "model": self.model}


def _kinds_of_parts(messages: list[Any]) -> set[str]:
    """text, image, video, audio: by the types of content parts (image_url, input_audio, ...)."""
    contents = [message.get("content") for message in messages]
    types = [part.get("type", "text") for content in contents if isinstance(content, list) for part in content]
    return {type_.removeprefix("input_").removesuffix("_url") for type_ in types}


def _last_text(messages: list[Any]) -> str:
    content = messages[-1]["content"] or ""
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def _as_text(prompt: str | list[int]) -> str:
    return prompt if isinstance(prompt, str) else "".join(map(chr, prompt))


def _usage(prompt: str, texts: Sequence[str]) -> dict[str, int]:
    completion_tokens = sum(map(len, texts))
    return {
        "prompt_tokens": len(prompt),
        "completion_tokens": completion_tokens,
        "total_tokens": len(prompt) + completion_tokens,
    }


def _logprobs(text: str) -> dict[str, Any]:
    return {"content": [{"token": c, "logprob": 0.0, "bytes": list(c.encode()), "top_logprobs": []} for c in text]}


def _embedding(text: str) -> list[float]:
    """How often each character occurs, as a vector of length 1."""
    counts = [0.0] * EMBEDDING_SIZE
    for character in text:
        counts[ord(character) % EMBEDDING_SIZE] += 1.0
    norm = math.sqrt(sum(count * count for count in counts)) or 1.0
    return [count / norm for count in counts]


def _similarity(first: str, second: str) -> float:
    return sum(a * b for a, b in zip(_embedding(first), _embedding(second), strict=True))
