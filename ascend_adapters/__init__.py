"""Run models on Ascend NPUs, or on the CPU, behind one contract: OpenAI bodies in, OpenAI bodies out."""

from ascend_adapters.contract import Backend, EngineInfo
from ascend_adapters.errors import AscendError

__all__ = ["AscendError", "Backend", "EmbeddedBackend", "EngineInfo", "ServerBackend", "open_backend"]


def __getattr__(name: str) -> object:
    # The backends import httpx, which costs more than the rest of this package together.
    if name == "ServerBackend":
        from ascend_adapters.server import ServerBackend

        return ServerBackend
    if name == "EmbeddedBackend":
        from ascend_adapters.embedded import EmbeddedBackend

        return EmbeddedBackend
    if name == "open_backend":
        from ascend_adapters.open import open_backend

        return open_backend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
