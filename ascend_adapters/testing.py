"""A backend without a model, for tests and examples. It keeps the contract, and answers what it is told to.

One character is one token, its code point the token's id. It passes the same conformance suite as the real
backends (tests/ascend_adapters/test_conformance.py).
"""

import asyncio
import base64
import itertools
import math
import struct
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ascend_adapters.contract import TASKS, Answer, Body, EngineInfo
from ascend_adapters.cut_answers import check_streamed, check_whole
from ascend_adapters.errors import RequestError
from ascend_adapters.pooling_requests import check_classify, check_embed, check_rerank, check_score
from ascend_adapters.requests import check_chat, check_complete, not_for

Reply = str | Body | Callable[[str], str | Body]
EMBEDDING_SIZE = 64
LABELS = ("short", "long")  # of texts, as classify tells them apart
LONG = 20  # tokens


class FakeBackend:
    """Answers with `reply`: a text, a message with "tool_calls" or "reasoning", or a function of the prompt."""

    def __init__(
        self,
        reply: Reply = lambda prompt: f"You said: {prompt}",
        *,
        model: str = "fake",
        max_model_len: int = 4096,
        modalities: Sequence[str] = ("text",),
        seconds_per_token: float = 0.0,
        tasks: tuple[str, ...] = TASKS,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        """
        tasks    what the model is for; other calls get the error that they get from an engine
        prompts  what `embed` puts before texts, by input_type
        """
        self.model = model
        self.max_model_len = max_model_len
        self.modalities = tuple(modalities)
        self.bodies: list[Body] = []  # what was asked, in order
        self._reply = reply
        self._seconds_per_token = seconds_per_token
        self._tasks = tasks
        self._prompts = dict(prompts or {})
        self._loras: dict[str, str] = {}
        self._ids = itertools.count(1)

    async def info(self) -> EngineInfo:
        return EngineInfo(
            self.model,
            self.max_model_len,
            "none (answers are made up)",
            tuple(self._loras),
            tasks=self._tasks,
            input_types=tuple(self._prompts),
            modalities=self.modalities,
        )

    async def chat(self, body: Body) -> Answer:
        self._check("chat", check_chat, body)
        prompt = _last_text(body["messages"])
        choices = [
            {"index": i, "message": {"role": "assistant", **message}, **rest}
            for i, message, rest in await self._choices(body, prompt)
        ]
        answer = self._answer("chat.completion", choices, prompt, [_text_of(c["message"]) for c in choices])
        return check_whole(body, answer)

    async def chat_stream(self, body: Body) -> AsyncGenerator[Answer, None]:
        self._check("chat", check_chat, body)
        prompt = _last_text(body["messages"])
        chunks = self._stream("chat.completion.chunk", body, prompt, lambda delta: {"delta": delta})
        async with aclosing(check_streamed(body, chunks)) as stream:
            async for chunk in stream:
                yield chunk

    async def complete(self, body: Body) -> Answer:
        self._check("complete", check_complete, body)
        prompt = _as_text(body["prompt"])
        choices = [{"index": i, "text": _text_of(said), **rest} for i, said, rest in await self._choices(body, prompt)]
        return self._answer("text_completion", choices, prompt, [str(choice["text"]) for choice in choices])

    async def complete_stream(self, body: Body) -> AsyncGenerator[Answer, None]:
        self._check("complete", check_complete, body)
        prompt = _as_text(body["prompt"])
        async for chunk in self._stream("text_completion", body, prompt, lambda delta: {"text": delta["content"]}):
            yield chunk

    async def embed(self, body: Body) -> Answer:
        self._check("embed", check_embed, body)
        if body.get("dimensions") is not None:
            raise RequestError(f"model {self.model!r} has embeddings of one size only: leave dimensions out.")
        texts = self._taken(self._with_prompt(_inputs(body), body), body)
        vectors = [_encoded(_embedding(text), body.get("encoding_format")) for text in texts]
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        return {"object": "list", "model": self.model, "data": data, "usage": _usage("".join(texts), [])}

    async def score(self, body: Body) -> Answer:
        self._check("score", check_score, body)
        first, second = (self._taken(_as_list(body[name]), body) for name in ("text_1", "text_2"))
        pairs = zip(first * len(second) if len(first) == 1 else first, second, strict=True)
        data = [{"object": "score", "index": i, "score": _similarity(*pair)} for i, pair in enumerate(pairs)]
        return {"object": "list", "model": self.model, "data": data, "usage": _usage("".join(first + second), [])}

    async def rerank(self, body: Body) -> Answer:
        self._check("rerank", check_rerank, body)
        documents = self._taken(_as_list(body["documents"]), body)
        scores = [_similarity(body["query"], text) for text in documents]
        ranked = sorted(range(len(scores)), key=lambda i: -scores[i])
        results = [{"index": i, "document": {"text": documents[i]}, "relevance_score": scores[i]} for i in ranked]
        usage = _usage("".join(documents), [])
        return {"model": self.model, "results": results[: body.get("top_n") or None], "usage": usage}

    async def classify(self, body: Body) -> Answer:
        self._check("classify", check_classify, body)
        texts = self._taken(_inputs(body), body)
        data = [{"index": i, **_classified(text)} for i, text in enumerate(texts)]
        return {"object": "list", "model": self.model, "data": data, "usage": _usage("".join(texts), [])}

    async def tokenize(self, body: Body) -> Answer:
        text = body["prompt"] if "prompt" in body else _last_text(body["messages"])
        return {"count": len(text), "max_model_len": self.max_model_len, "tokens": [ord(c) for c in text]}

    async def load_lora(self, name: str, path: str) -> None:
        if name in self._loras:
            raise RequestError(f"LoRA adapter {name!r} is loaded already: unload it first, or use another name.")
        self._loras[name] = path

    async def unload_lora(self, name: str) -> None:
        if name not in self._loras:
            raise RequestError(f"LoRA adapter {name!r} is not loaded: loaded are {sorted(self._loras)}.")
        del self._loras[name]

    async def close(self) -> None:
        """Holds nothing."""

    def _check(self, call: str, check: Callable[[Body], None], body: Body) -> None:
        check(body)
        if call not in self._tasks:
            raise not_for(call, self.model, self._tasks)
        for kind in sorted(_kinds_of_parts(body.get("messages") or [])):
            if kind not in self.modalities:
                raise RequestError(f"{self.model} is not a multimodal model that takes {kind}: send text only.")

    def _with_prompt(self, texts: list[str], body: Body) -> list[str]:
        input_type = body.get("input_type")
        if input_type is None:
            return texts
        if input_type not in self._prompts:
            raise RequestError(f"input_type={input_type!r} is unknown: the model has {sorted(self._prompts)}.")
        return [self._prompts[input_type] + text for text in texts]

    def _taken(self, texts: list[str], body: Body) -> list[str]:
        """The texts, cut if the body says so."""
        limit = body.get("truncate_prompt_tokens")
        if limit is not None:
            texts = [text[: self.max_model_len if limit == -1 else limit] for text in texts]
        longest = max(map(len, texts))
        if longest > self.max_model_len:
            raise RequestError(
                f"a text has {longest} tokens, the context {self.max_model_len}: shorten it, or give "
                "truncate_prompt_tokens=-1."
            )
        return texts

    async def _choices(self, body: Body, prompt: str) -> list[tuple[int, Body, dict[str, Any]]]:
        message, finish_reason = self._generate(body, prompt)
        text = _text_of(message)
        await asyncio.sleep(self._seconds_per_token * len(text))
        rest = {"finish_reason": finish_reason, "logprobs": _logprobs(text) if body.get("logprobs") else None}
        return [(i, message, rest) for i in range(body.get("n") or 1)]

    async def _stream(
        self, kind: str, body: Body, prompt: str, piece: Callable[[Body], Body]
    ) -> AsyncGenerator[Answer, None]:
        message, finish_reason = self._generate(body, prompt)
        head = self._head(kind)
        deltas = _deltas(message)
        for i, delta in enumerate(deltas):
            await asyncio.sleep(self._seconds_per_token)
            last = i == len(deltas) - 1
            for index in range(body.get("n") or 1):
                choice = {"index": index, **piece(delta), "finish_reason": finish_reason if last else None}
                if body.get("logprobs"):
                    choice["logprobs"] = _logprobs(delta.get("content") or "")
                yield {**head, "choices": [choice]}
        yield {**head, "choices": [], "usage": _usage(prompt, [_text_of(message)])}

    def _generate(self, body: Body, prompt: str) -> tuple[Body, str]:
        self.bodies.append(body)
        if (model := body.get("model", self.model)) not in (self.model, *self._loras):
            raise RequestError(f"The model `{model}` does not exist.")
        if len(prompt) >= self.max_model_len:
            raise RequestError(f"the prompt has {len(prompt)} tokens, the context {self.max_model_len}: shorten it.")
        reply = self._reply(prompt) if callable(self._reply) else self._reply
        if isinstance(reply, dict):
            return {"content": None, **reply}, "tool_calls" if reply.get("tool_calls") else "stop"
        text = reply
        stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        text = text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or self.max_model_len - len(prompt)
        return ({"content": text}, "stop") if len(text) <= limit else ({"content": text[:limit]}, "length")

    def _answer(self, kind: str, choices: list[dict[str, Any]], prompt: str, texts: Sequence[str]) -> Answer:
        return {**self._head(kind), "choices": choices, "usage": _usage(prompt, texts)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"fake-{next(self._ids)}", "object": kind, "created": 0, "model": self.model}


def _text_of(message: Body) -> str:
    """All that was generated for `message`: one character of it is one token."""
    calls = [call["function"] for call in message.get("tool_calls") or []]
    return "".join(
        [
            message.get("reasoning") or "",
            message["content"] or "",
            *(call["name"] + call["arguments"] for call in calls),
        ]
    )


def _deltas(message: Body) -> list[Body]:
    """`message` in pieces, as a server streams it: arguments of calls follow a piece that names the call."""
    deltas: list[Body] = [{field: c} for field in ("reasoning", "content") for c in message.get(field) or ""]
    for i, call in enumerate(message.get("tool_calls") or []):
        function = {"name": call["function"]["name"], "arguments": ""}
        deltas.append({"tool_calls": [{**call, "index": i, "function": function}]})
        deltas += [{"tool_calls": [{"index": i, "function": {"arguments": c}}]} for c in call["function"]["arguments"]]
    return deltas


def _kinds_of_parts(messages: list[Any]) -> set[str]:
    """text, image, video, audio: by the types of content parts (image_url, input_audio, ...)."""
    contents = [message.get("content") for message in messages]
    types = [part.get("type", "text") for content in contents if isinstance(content, list) for part in content]
    return {type_.removeprefix("input_").removesuffix("_url") for type_ in types}


def _last_text(messages: list[Any]) -> str:
    content = messages[-1]["content"] or ""
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def _inputs(body: Body) -> list[str]:
    """The texts of an embed or classify body, whatever its form."""
    if body.get("messages"):
        return [_last_text(body["messages"])]
    given = body["input"]
    if isinstance(given, str) or isinstance(given[0], int):
        return [_as_text(given)]
    return [_as_text(item) for item in given]


def _as_list(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def _classified(text: str) -> dict[str, Any]:
    is_long = len(text) / (len(text) + LONG)
    probs = [1 - is_long, is_long]
    return {"label": LABELS[probs.index(max(probs))], "probs": probs, "num_classes": len(probs)}


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


def _encoded(vector: list[float], encoding: str | None) -> list[float] | str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if encoding == "base64" else vector


def _similarity(first: str, second: str) -> float:
    return sum(a * b for a, b in zip(_embedding(first), _embedding(second), strict=True))
