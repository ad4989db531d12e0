"""LangChain on Ascend: models that run here, or on a server."""

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise ImportError("langchain_ascend needs LangChain: pip install 'ascend-adapters[langchain]'") from error

from langchain_ascend.chat_models import ChatAscend
from langchain_ascend.embeddings import AscendEmbeddings
from langchain_ascend.llms import AscendLLM
from langchain_ascend.rerank import AscendRerank

__all__ = ["AscendEmbeddings", "AscendLLM", "AscendRerank", "ChatAscend"]
