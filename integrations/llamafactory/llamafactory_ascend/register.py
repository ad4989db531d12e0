"""Making `infer_backend: ascend` known to LLaMA-Factory, which has no plugins.

Both functions may be called again, and fail loudly if LLaMA-Factory's code is not what they were written for. Remove
when LLaMA-Factory takes engines by entry point (asked for nowhere yet).
"""

import inspect
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from threading import Thread
from typing import Any

from ascend_adapters.errors import SettingError

VERSION = "0.9.5"
NAME, MEMBER = "ascend", "ASCEND"


def register() -> None:
    """Both. Raises SettingError if LLaMA-Factory is absent or of another version."""
    check_version()
    add_engine_name()
    route_chat_model()


def check_version() -> None:
    """Raises SettingError if LLaMA-Factory is absent or of another version."""
    try:
        found = version("llamafactory")
    except PackageNotFoundError:
        raise SettingError(
            "LLaMA-Factory is not installed: pip install 'ascend-adapters[llamafactory]' brings the version that fits."
        ) from None
    if found != VERSION:
        raise SettingError(
            f"LLaMA-Factory {found} is installed, and this package was made for {VERSION}: pip install "
            f"llamafactory=={VERSION}"
        )


def add_engine_name() -> None:
    """`ascend` becomes a value of infer_backend, in YAML and on the command line, whose choices are this enum's.

    Source: llamafactory.extras.constants.EngineName.
    """
    from llamafactory.extras.constants import EngineName

    if MEMBER in EngineName.__members__:
        return
    if {"HF", "VLLM"} - set(EngineName.__members__) or not issubclass(EngineName, str):
        raise SettingError(_moved("EngineName"))
    member: Any = str.__new__(EngineName, NAME)
    member._name_, member._value_ = MEMBER, NAME
    EngineName._member_map_[MEMBER] = member
    EngineName._value2member_map_[NAME] = member
    EngineName._member_names_.append(MEMBER)


def route_chat_model() -> None:
    """ChatModel, of which chat, API and web chat are made, gets our engine where infer_backend says so.

    Its constructor knows three names, and raises NotImplementedError for others.
    Source: llamafactory.chat.chat_model.ChatModel.
    """
    import asyncio

    from llamafactory.chat import chat_model
    from llamafactory.chat.chat_model import ChatModel
    from llamafactory.extras.constants import EngineName
    from llamafactory.hparams import get_infer_args

    original = ChatModel.__init__
    if hasattr(original, "__wrapped__"):
        return
    source = inspect.getsource(original)
    if not all(part in source for part in ("get_infer_args(args)", "Unknown backend", "self._loop", "self._thread")):
        raise SettingError(_moved("ChatModel"))

    @wraps(original)
    def with_ascend(self: Any, args: dict[str, Any] | None = None) -> None:
        arguments = get_infer_args(args)
        backend, known = arguments[0].infer_backend, [name.value for name in EngineName]
        if backend not in known:
            raise SettingError(f"infer_backend={backend!r} is unknown: use {', '.join(known)}.")
        if backend != NAME:
            original(self, args)
            return
        from llamafactory_ascend.engine import AscendEngine

        self.engine = AscendEngine(*arguments)
        self.engine.start()  # as the others do: an error is told here, and not with the first question
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=chat_model._start_background_loop, args=(self._loop,), daemon=True)
        self._thread.start()

    ChatModel.__init__ = with_ascend


def _moved(what: str) -> str:
    return (
        f"LLaMA-Factory's {what} is not what it is in version {VERSION}: has it been changed here? "
        f"pip install --force-reinstall --no-deps llamafactory=={VERSION}"
    )
