"""LLaMA-Factory on Ascend: `infer_backend: ascend` for its chat, API and web chat."""

from llamafactory_ascend.register import register

__all__ = ["register"]
