"""The engines of LangChain's tests: with a chat template for tools, and a grammar without blanks."""

from tests.integrations.langchain.conftest import tool_engine, tool_server

__all__ = ["tool_engine", "tool_server"]
