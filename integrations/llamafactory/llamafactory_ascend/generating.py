"""LLaMA-Factory's generating arguments to fields of a completion request."""

from collections.abc import Mapping
from typing import Any

from ascend_adapters.contract import Body
from ascend_adapters.errors import RequestError

# Of beam search, which the engine has not, and the values that ask for none.
OF_BEAMS = {"num_beams": 1, "length_penalty": 1.0}
KNOWN = (
    *("do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "max_length", "max_new_tokens"),
    *("num_return_sequences", "stop", "seed", "skip_special_tokens", *OF_BEAMS),
)


def request_fields(own: Mapping[str, Any], call: Mapping[str, Any], num_prompt_tokens: int) -> Body:
    """The fields of a request besides its prompt: the engine's generating arguments, and over them those of a call.

    None in a call is as if it were not given. Raises RequestError for an argument that the engine does not have.
    """
    given = {name: value for name, value in call.items() if value is not None}
    asked = {**own, **given}
    _check(asked)
    num_answers = int(asked.get("num_return_sequences") or 1)
    temperature = float(asked.get("temperature") or 0)
    if not asked.get("do_sample", True) and num_answers == 1:
        temperature = 0.0
    if num_answers > 1 and temperature == 0:
        temperature = 1.0  # as LLaMA-Factory's own engine has it: greedy answers would all be the same
    body: Body = {
        "temperature": temperature,
        # 0 means no limit there, and is no value here
        "top_p": float(asked.get("top_p") or 1.0),
        "top_k": int(asked.get("top_k") or -1),
        "repetition_penalty": float(asked.get("repetition_penalty") or 1.0),
        "max_tokens": _max_tokens(own, given, num_prompt_tokens),
        "skip_special_tokens": bool(asked.get("skip_special_tokens", True)),
    }
    if num_answers > 1:
        body["n"] = num_answers
    if (stop := asked.get("stop")) is not None:
        body["stop"] = [stop] if isinstance(stop, str) else list(stop)
    if (seed := asked.get("seed")) is not None:
        body["seed"] = seed
    return body


def _check(asked: Mapping[str, Any]) -> None:
    for name, value in asked.items():
        if name not in KNOWN:
            raise RequestError(f"unknown generating argument {name!r}: these are {', '.join(KNOWN)}.")
        if value is not None and value != OF_BEAMS.get(name, value):
            raise RequestError(
                f"{name}={value}: the engine has no beam search. Leave it out, or use infer_backend=huggingface."
            )


def _max_tokens(own: Mapping[str, Any], call: Mapping[str, Any], num_prompt_tokens: int) -> int:
    """max_new_tokens, or what max_length leaves; those of a call count before the engine's own."""
    for arguments in (call, own):
        if limit := arguments.get("max_new_tokens"):
            return int(limit)
        if length := arguments.get("max_length"):
            return max(1, int(length) - num_prompt_tokens)
    raise RequestError("neither max_new_tokens nor max_length is given: give one of them.")
