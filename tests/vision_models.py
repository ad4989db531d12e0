"""Tiny vision-language models of real architectures, with the image and video processors that go with them.

Heads of 72 and 80 elements as in the real towers; patches of 4 pixels, so that a small picture is many of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from tests.models import SEED, SIZES, byte_tokenizer, of_transformers, randomize

if TYPE_CHECKING:
    import transformers

MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<image>")
VISION_START, VISION_END, IMAGE, VIDEO, LLAVA_IMAGE = range(260, 265)
NUM_BYTES = 256  # tokens below are text; a model that generated others would ask for pictures that are not there
PATCH, MERGE, TEMPORAL_PATCH = 4, 2, 2
LLAVA_PICTURE = 32  # pixels: LLaVA scales every picture to this
MROPE = {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 10000.0}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if 'image' in part.type %}IMAGE{% elif 'video' in part.type %}VIDEO{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class VisionFamily:
    """A kind of vision-language model: its configuration, its processor, and how its prompts mark pictures."""

    name: str
    config: Callable[[], Any]
    processor: Callable[[], Any]
    image: str
    video: str | None = None  # None: it takes none
    # vLLM 0.23 takes every video of Qwen2.5-VL for one of 24 frames a second, unless mm_processor_kwargs tell.
    must_be_told_times: bool = False
    # Chip -> part of the message with which it is refused there.
    refused: dict[str, str] = field(default_factory=dict)

    def build(self, folder: Path) -> Path:
        """The model's folder: config, weights in safetensors, tokenizer, image and video processor."""
        import transformers

        torch.manual_seed(SEED)
        model = transformers.AutoModelForImageTextToText.from_config(self.config(), dtype=torch.float32)
        randomize(model)
        model.generation_config = transformers.GenerationConfig()
        model.save_pretrained(folder)
        _name_weights_as_published(folder / "model.safetensors", self.name)
        processor = self.processor()
        template = CHAT_TEMPLATE.replace("IMAGE", self.image).replace("VIDEO", self.video or "")
        processor.chat_template = processor.tokenizer.chat_template = template
        processor.save_pretrained(folder)
        return folder


def _name_weights_as_published(file: Path, family: str) -> None:
    """transformers 5.5 saves LLaVA's weights under names of its own, half the old ones and half the new."""
    if family.startswith("LLaVA"):
        save_file({name.removeprefix("model."): weight for name, weight in load_file(file).items()}, file)


def tokenizer() -> "transformers.PreTrainedTokenizerFast":
    """Bytes, and the marks of pictures and videos."""
    bytes_only = byte_tokenizer()
    bytes_only.add_special_tokens({"additional_special_tokens": list(MARKS)})
    return bytes_only


def text_config(**values: Any) -> dict[str, Any]:
    """The language model's sizes."""
    return {**SIZES, **values}


def qwen(config_class: str, vision: dict[str, Any], **text: Any) -> Callable[[], Any]:
    """A configuration of a Qwen model that sees."""
    vision = {"patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": TEMPORAL_PATCH, **vision}
    return lambda: of_transformers(
        config_class,
        text_config=text_config(**text),
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
    )


def qwen_processor(processor_class: str, video_processor_class: str) -> Callable[[], Any]:
    """Pictures keep their size, up to 128 x 128 pixels, rounded to whole tokens."""
    sizes: dict[str, Any] = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": TEMPORAL_PATCH,
        "size": {"shortest_edge": 16 * 16, "longest_edge": 128 * 128},
    }
    return lambda: of_transformers(
        processor_class,
        image_processor=of_transformers("Qwen2VLImageProcessorFast", **sizes),
        tokenizer=tokenizer(),
        video_processor=of_transformers(video_processor_class, **sizes),
    )


def llava(vision_class: str, *, strategy: str, **vision: Any) -> Callable[[], Any]:
    """A configuration of LLaVA on the given tower."""
    return lambda: of_transformers(
        "LlavaConfig",
        text_config=of_transformers("LlamaConfig", **SIZES),
        vision_config=of_transformers(
            vision_class,
            image_size=LLAVA_PICTURE,
            patch_size=PATCH,
            num_hidden_layers=3,
            intermediate_size=96,
            **vision,
        ),
        image_token_index=LLAVA_IMAGE,
        vision_feature_select_strategy=strategy,
        image_seq_length=(LLAVA_PICTURE // PATCH) ** 2,
    )


def llava_processor(*, strategy: str, extra: int, siglip: bool = False) -> Callable[[], Any]:
    """Every picture is scaled to one size."""
    size = {"height": LLAVA_PICTURE, "width": LLAVA_PICTURE}
    image_class = "SiglipImageProcessor" if siglip else "CLIPImageProcessor"
    settings: dict[str, Any] = {"size": size} if siglip else {"size": size, "crop_size": size}
    return lambda: of_transformers(
        "LlavaProcessor",
        image_processor=of_transformers(image_class, **settings),
        tokenizer=tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=extra,
        image_token="<image>",
    )


QWEN_MARKS: dict[str, Any] = {
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "video": "<|vision_start|><|video_pad|><|vision_end|>",
}
VISION_FAMILIES = {
    family.name: family
    for family in (
        VisionFamily(
            "Qwen2-VL",
            qwen(
                "Qwen2VLConfig",
                {"depth": 2, "embed_dim": 160, "num_heads": 2, "hidden_size": SIZES["hidden_size"]},
                rope_parameters=MROPE,
            ),
            qwen_processor("Qwen2VLProcessor", "Qwen2VLVideoProcessor"),
            **QWEN_MARKS,
        ),
        VisionFamily(
            "Qwen2.5-VL",
            qwen(
                "Qwen2_5_VLConfig",
                {
                    "depth": 2,
                    "hidden_size": 160,
                    "num_heads": 2,
                    "intermediate_size": 96,
                    "out_hidden_size": SIZES["hidden_size"],
                    "window_size": 4 * PATCH * MERGE,
                    "fullatt_block_indexes": [1],
                },
                rope_parameters=MROPE,
            ),
            qwen_processor("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"),
            must_be_told_times=True,
            **QWEN_MARKS,
        ),
        VisionFamily(
            "Qwen3-VL",
            qwen(
                "Qwen3VLConfig",
                {
                    "depth": 3,
                    "hidden_size": 144,
                    "num_heads": 2,
                    "intermediate_size": 96,
                    "out_hidden_size": SIZES["hidden_size"],
                    "num_position_embeddings": 64,
                    "deepstack_visual_indexes": [0, 1],
                },
                rope_parameters={**MROPE, "mrope_interleaved": True},
            ),
            qwen_processor("Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
            **QWEN_MARKS,
        ),
        VisionFamily(
            "LLaVA on CLIP",
            llava("CLIPVisionConfig", strategy="default", hidden_size=128, num_attention_heads=2),
            llava_processor(strategy="default", extra=1),
            image="<image>",
        ),
        VisionFamily(
            "LLaVA on SigLIP",
            llava("SiglipVisionConfig", strategy="full", hidden_size=144, num_attention_heads=2),
            llava_processor(strategy="full", extra=0, siglip=True),
            image="<image>",
        ),
    )
}
