"""From what a user gives an adapter (a model's name, or a server's address) to a backend."""

from collections.abc import Collection, Mapping
from typing import Any

from ascend_adapters.contract import Backend
from ascend_adapters.errors import SettingError


def with_engine_settings(given: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """The keywords of an adapter's class, with those that are none of its fields as "engine_settings"."""
    settings = {name: value for name, value in given.items() if name not in fields}
    rest = {name: value for name, value in given.items() if name in fields}
    return {**rest, "engine_settings": {**(rest.get("engine_settings") or {}), **settings}}


def open_backend(
    model: str | None = None,
    base_url: str | None = None,
    *,
    backend: Backend | None = None,
    api_key: str | None = None,
    timeout: float | None = None,
    max_retries: int | None = None,
    **engine_settings: Any,
) -> Backend:
    """`backend` if given, else the server at `base_url` if given, else the embedded engine of `model`.

    Nothing is started yet.

    engine_settings  of the embedded engine, by vLLM's names; a server has its own

    Raises SettingError, also for what has no effect beside what else is given, or ModelError.
    """
    if backend is not None:
        of_the_engine = {"model": model, "base_url": base_url, "api_key": api_key}
        given = {**of_the_engine, "timeout": timeout, "max_retries": max_retries, **engine_settings}
        if unused := [name for name, value in given.items() if value is not None]:
            raise SettingError(f"{', '.join(unused)}: of no effect beside backend=, which is the engine itself.")
        return backend
    # Not at the top: they import httpx, which costs more than the rest of this package together.
    from ascend_adapters.embedded import EmbeddedBackend
    from ascend_adapters.server import ServerBackend

    if base_url is not None:
        if engine_settings:
            raise SettingError(
                f"{', '.join(sorted(engine_settings))}: settings of an embedded engine, but base_url={base_url!r} "
                "names a server, which has its own. Give them to `ascend-adapters serve`."
            )
        return ServerBackend(base_url, model, api_key=api_key, timeout=timeout, max_retries=max_retries or 0)
    if api_key is not None:
        raise SettingError("api_key is for a server, but no base_url is given: an embedded engine needs no key.")
    if max_retries:
        raise SettingError("max_retries is for a server, but no base_url is given: an embedded engine is always there.")
    if model is None:
        raise SettingError(
            "neither model nor base_url is given: model='smollm2-135m-instruct' runs here, base_url=... asks a server."
        )
    return EmbeddedBackend(model, timeout=timeout, **engine_settings)
