"""What the classes for LlamaIndex have in common: the engine that they ask, and how a user names it."""

from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from llama_index.core.schema import BaseComponent

from ascend_adapters.bridge import run_sync
from ascend_adapters.contract import Backend, EngineInfo
from ascend_adapters.open import open_backend, with_engine_settings


class OnAscend(BaseComponent):
    """An engine on Ascend: `model=` runs it here, `base_url=` asks a server.

    Any further keyword is an engine setting by vLLM's name (dtype, max_model_len, kv_cache_memory_bytes, ...);
    models with the same settings share one engine.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=("pydantic_model_",))

    model: str | None = Field(
        default=None,
        description="A name that `ascend-adapters models list` shows, a Hugging Face folder, a hub id, or the server's "
        "name for it.",
    )
    base_url: str | None = Field(
        default=None,
        description="An OpenAI-compatible server, such as http://127.0.0.1:8000; None: an engine of this process.",
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="What the server wants to see; None: the environment variable ASCEND_API_KEY.",
        exclude=True,
    )
    timeout: float | None = Field(
        default=None, description="Seconds until an answer, or until the next chunk of a stream; None: no limit."
    )
    max_retries: int | None = Field(
        default=None,
        description="How often to ask a server again that cannot be reached, or says that it is overloaded.",
    )
    engine_settings: dict[str, Any] = Field(
        default_factory=dict,
        description="The engine's settings; keywords that are no field of this class end up here.",
    )
    backend: Backend | None = Field(
        default=None,
        description="The engine itself, in place of model and base_url: to share one, or a FakeBackend in tests.",
        exclude=True,
    )

    _backend: Backend = PrivateAttr()
    _info: EngineInfo | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _collect_engine_settings(cls, given: Any) -> Any:
        return with_engine_settings(given, cls.model_fields) if isinstance(given, dict) else given

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
        self._info = run_sync(self._backend.info())
        return self._info

    async def aengine_info(self) -> EngineInfo:
        """The same without blocking the event loop."""
        self._info = await self._backend.info()
        return self._info

    def _known(self) -> EngineInfo:
        """What the engine said when it was first asked: it does not change while it runs."""
        return self._info or self.engine_info()

    async def _aknown(self) -> EngineInfo:
        return self._info or await self.aengine_info()
