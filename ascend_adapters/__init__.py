"""Run models on Ascend NPUs, or on the CPU, behind one contract: OpenAI bodies in, OpenAI bodies out."""

from importlib import import_module
from typing import TYPE_CHECKING

from ascend_adapters.contract import Backend, EngineInfo
from ascend_adapters.errors import AscendError

if TYPE_CHECKING:
    from ascend_adapters.embedded import EmbeddedBackend
    from ascend_adapters.open import open_backend
    from ascend_adapters.server import ServerBackend

__all__ = ["AscendError", "Backend", "EmbeddedBackend", "EngineInfo", "ServerBackend", "open_backend"]

# Loaded on first use: they import httpx, which costs more than the rest of this package together.
_LAZY = {"EmbeddedBackend": "embedded", "ServerBackend": "server", "open_backend": "open"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
