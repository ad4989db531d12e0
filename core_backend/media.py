"""What a model takes besides text, and how large it may be: looked at before it is decoded."""

import os
from typing import TYPE_CHECKING

from core_backend.config import BackendConfig

if TYPE_CHECKING:
    from vllm.config import ModelConfig

CONNECTOR = "VLLM_MEDIA_CONNECTOR"  # names the class that fetches media; vLLM asks for it at every request


def modalities(model_config: "ModelConfig") -> tuple[str, ...]:
    """text, and what else may come with a request: what the model knows, less what limit_mm_per_prompt sets to 0."""
    if not model_config.is_multimodal_model:
        return ("text",)
    from vllm.multimodal import MULTIMODAL_REGISTRY

    if not MULTIMODAL_REGISTRY.supports_multimodal_inputs(model_config):
        return ("text",)
    limits = MULTIMODAL_REGISTRY.get_processing_info(model_config).allowed_mm_limits
    return ("text", *sorted(modality for modality, limit in limits.items() if limit))


def bound(config: BackendConfig) -> None:
    """Let vLLM fetch media through our connector, unless the user has chosen another."""
    from core_backend.media_connector import NAME, BoundedMediaConnector

    BoundedMediaConnector.max_image_pixels = config.max_image_pixels
    BoundedMediaConnector.max_video_pixels = config.max_video_pixels
    os.environ.setdefault(CONNECTOR, NAME)
