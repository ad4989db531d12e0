"""Write ascend_adapters/vllm_names.json: the engine settings and request fields that the installed vLLM knows.

ascend_adapters checks names without importing vLLM, so it carries this list; a test compares the two.
Run as `make vllm-names` after changing vLLM's version.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

TARGET = Path(__file__).parents[1] / "ascend_adapters" / "vllm_names.json"
# Set by the engine's owner, or of no use to a single private engine.
NOT_SETTINGS = {
    "help", "model", "model_tag", "host", "port", "uds", "api_key", "served_model_name", "config", "headless",
    "root_path", "ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers", "grpc",
    "api_server_count", "enable_ssl_refresh", "disable_fastapi_docs",
}  # fmt: skip


def engine_settings() -> dict[str, str]:
    """Every setting of `vllm serve`, and whether it is a flag, a value or a list."""
    from vllm.entrypoints.openai.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    return {a.dest: _kind(a) for a in parser._actions if a.option_strings and a.dest not in NOT_SETTINGS}


def _kind(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "switch" if any(o.startswith("--no-") for o in action.option_strings) else "flag"
    return "list" if action.nargs in ("+", "*") else "value"


def request_fields() -> dict[str, list[str]]:
    """Fields of the request bodies, by contract call."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.pooling.classify.protocol import ClassificationChatRequest, ClassificationCompletionRequest
    from vllm.entrypoints.pooling.embed.protocol import EmbeddingChatRequest, EmbeddingCompletionRequest
    from vllm.entrypoints.pooling.scoring.protocol import RerankRequest, ScoreTextRequest

    bodies: dict[str, tuple[type[BaseModel], ...]] = {
        "chat": (ChatCompletionRequest,),
        "complete": (CompletionRequest,),
        "embed": (EmbeddingCompletionRequest, EmbeddingChatRequest),
        "score": (ScoreTextRequest,),
        "rerank": (RerankRequest,),
        "classify": (ClassificationCompletionRequest, ClassificationChatRequest),
    }
    names = {call: {name for form in forms for name in form.model_fields} for call, forms in bodies.items()}
    names["embed"].add("input_type")  # of CohereEmbedRequest: the contract has one embed for both
    return {call: sorted(fields) for call, fields in names.items()}


def names() -> dict[str, Any]:
    """What the file holds."""
    return {"engine_settings": engine_settings(), "request_fields": request_fields()}


if __name__ == "__main__":
    TARGET.write_text(json.dumps(names(), indent=1) + "\n")
    print(TARGET)
