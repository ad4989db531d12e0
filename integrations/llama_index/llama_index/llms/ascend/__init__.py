"""LlamaIndex on Ascend: language models that run here, or on a server."""

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise ImportError("llama_index.llms.ascend needs LlamaIndex: pip install 'ascend-adapters[llama-index]'") from error

from llama_index.llms.ascend.base import Ascend

__all__ = ["Ascend"]
