"""LlamaIndex on Ascend: embedding models that run here, or on a server."""

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise ImportError(
        "llama_index.embeddings.ascend needs LlamaIndex: pip install 'ascend-adapters[llama-index]'"
    ) from error

from llama_index.embeddings.ascend.base import AscendEmbedding

__all__ = ["AscendEmbedding"]
