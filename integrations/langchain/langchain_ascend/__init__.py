"""LangChain on Ascend: chat models that run here, or on a server."""

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise ImportError("langchain_ascend needs LangChain: pip install 'ascend-adapters[langchain]'") from error

from langchain_ascend.chat_models import ChatAscend

__all__ = ["ChatAscend"]
