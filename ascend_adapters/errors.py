"""What can go wrong, as a caller sees it. Every message names the value and the remedy."""


class AscendError(Exception):
    """The base of all errors raised by ascend_adapters."""


class SettingError(AscendError, ValueError):
    """A setting or keyword is unknown, has a bad value, or does not belong where it was given."""


class ModelError(AscendError, ValueError):
    """A model's name is unknown, or its folder holds no model."""


class RequestError(AscendError, ValueError):
    """The engine cannot answer this request as it is; it serves others on."""


class EngineStartError(AscendError, RuntimeError):
    """The embedded engine did not start."""


class EngineDiedError(AscendError, RuntimeError):
    """The engine ended while it was answering. The next call starts a new one."""


class ServerError(AscendError, ConnectionError):
    """The server cannot be reached, refuses the key, or failed."""


class RequestTimeoutError(AscendError, TimeoutError):
    """The answer did not come in the time given; the request was aborted."""
