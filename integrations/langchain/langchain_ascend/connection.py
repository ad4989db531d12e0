"""What all classes of this package have in common: which engine they ask."""

import os
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from ascend_adapters.bridge import run_sync
from ascend_adapters.contract import Backend, EngineInfo
from ascend_adapters.open import open_backend, with_engine_settings

API_KEY = "ASCEND_API_KEY"  # the environment variable


class Connected(BaseModel):
    """`model=` runs a model here, `base_url=` asks a server.

    Any further keyword is an engine setting by vLLM's name (dtype, max_model_len, kv_cache_memory_bytes, ...);
    whoever has the same model and settings shares one engine.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, arbitrary_types_allowed=True)

    model: str | None = None
    """A name that `ascend-adapters models list` shows, a Hugging Face folder, a hub id, or the server's name for it."""
    base_url: str | None = None
    """An OpenAI-compatible server, such as http://127.0.0.1:8000; None: an engine of this process."""
    api_key: SecretStr | None = None
    """What the server wants to see; None: the environment variable ASCEND_API_KEY."""
    timeout: float | None = None
    """Seconds until an answer, or until the next chunk of a stream; None: no limit."""
    max_retries: int | None = None
    """How often to ask a server again that cannot be reached, or says that it is overloaded."""
    engine_settings: dict[str, Any] = Field(default_factory=dict)
    """The engine's settings; keywords that are no field of this class end up here."""
    backend: Backend | None = Field(default=None, exclude=True)
    """The engine itself, in place of model and base_url: to share one, or a FakeBackend in tests."""

    _backend: Backend = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _collect_engine_settings(cls, given: Any) -> Any:
        return with_engine_settings(given, cls.model_fields) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _take_the_key_from_the_environment(self) -> Self:
        if self.base_url is not None and self.api_key is None and (key := os.environ.get(API_KEY)):
            self.api_key = SecretStr(key)
        return self

    def __init__(self, **settings: Any) -> None:
        """Raises SettingError or ModelError; nothing is started before the first call."""
        super().__init__(**settings)
        # Here and not in a validator: pydantic would bury the error in a ValidationError.
        self._backend = open_backend(
            self.model,
            self.base_url,
            backend=self.backend,
            api_key=self.api_key.get_secret_value() if self.api_key else None,
            timeout=self.timeout,
            max_retries=self.max_retries,
            **self.engine_settings,
        )

    def close(self) -> None:
        """Stop the embedded engine, unless another uses it, or close the connections to the server.

        A later call opens them again.
        """
        run_sync(self._backend.close())

    def engine_info(self) -> EngineInfo:
        """The engine behind this model: its device, its longest context. Starts it if need be."""
        return run_sync(self._backend.info())

    @property
    def lc_secrets(self) -> dict[str, str]:
        """What is left out of a serialized model, and the environment variable it is taken from again."""
        return {"api_key": API_KEY}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Models of LangChain can be dumped and loaded."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Where langchain_core.load finds this class."""
        return cls.__module__.split(".")
