"""LlamaIndex on Ascend: rerankers that run here, or on a server."""

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise ImportError(
        "llama_index.postprocessor.ascend_rerank needs LlamaIndex: pip install 'ascend-adapters[llama-index]'"
    ) from error

from llama_index.postprocessor.ascend_rerank.base import AscendRerank

__all__ = ["AscendRerank"]
