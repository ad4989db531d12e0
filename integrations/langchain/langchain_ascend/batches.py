"""Answers of a batch in the order in which they come."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig


async def results_as_completed(
    model: Runnable[Any, AIMessage],
    inputs: Sequence[Any],
    config: RunnableConfig | Sequence[RunnableConfig] | None,
    *,
    return_exceptions: bool,
    **kwargs: Any,
) -> AsyncGenerator[tuple[int, AIMessage | Exception], None]:
    """Core's abatch_as_completed as a generator that can be closed: closing it cancels the rest."""
    done = model.abatch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)  # type: ignore[call-overload]
    async for item in done:
        yield item
