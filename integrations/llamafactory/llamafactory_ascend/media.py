"""Pictures, videos and sounds, as LLaMA-Factory prepares them, to parts of a chat request."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

from llamafactory.data.mm_plugin import BasePlugin, Qwen3VLPlugin
from llamafactory.extras.constants import AUDIO_PLACEHOLDER, IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER

from ascend_adapters.contract import Body
from ascend_adapters.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

Message = dict[str, str]


@dataclass(frozen=True)
class Media:
    """What comes with messages besides text: paths, bytes or objects, as LLaMA-Factory takes them."""

    images: list[Any] = field(default_factory=list)
    videos: list[Any] = field(default_factory=list)
    audios: list[Any] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.images or self.videos or self.audios)

    def marked(self, messages: list[Message]) -> list[Message]:
        """The messages with a mark for each medium: before the first one, where they have none of that kind.

        Source: llamafactory 0.9.5, chat/vllm_engine.py.
        """
        first, *rest = messages
        for mark, media in (
            (IMAGE_PLACEHOLDER, self.images),
            (VIDEO_PLACEHOLDER, self.videos),
            (AUDIO_PLACEHOLDER, self.audios),
        ):
            if media and not any(mark in message["content"] for message in messages):
                first = {**first, "content": mark * len(media) + first["content"]}
        return [first, *rest]

    def body(self, plugin: BasePlugin, processor: Any) -> Body:
        """Fields of a chat request: "parts" of its message, and how the engine is to take them.

        processor  of the model, on which LLaMA-Factory notes its limits (image_max_pixels, video_fps, ...)

        Raises RequestError for what is no picture, video or sound.
        """
        try:
            videos = _videos(plugin, processor, self.videos)
            return {
                "parts": [
                    *map(_picture, _pictures(plugin, processor, self.images)),
                    *map(_video, videos.get("videos", [])),
                    *_sounds(plugin, processor, self.audios),
                ],
                **_times(plugin, videos),
            }
        except (OSError, ValueError, TypeError) as error:
            raise RequestError(f"a picture, video or sound cannot be read: {error}") from error


def _pictures(plugin: BasePlugin, processor: Any, images: list[Any]) -> Sequence["Image"]:
    limits = {name: getattr(processor, name) for name in ("image_max_pixels", "image_min_pixels")}
    regular: Sequence[Image] = plugin._regularize_images(images, **limits)["images"]
    return regular


def _videos(plugin: BasePlugin, processor: Any, videos: list[Any]) -> dict[str, Any]:
    """Frames of each, and of Qwen's models also how many there are in a second."""
    if not videos:
        return {}
    limits = {"image_max_pixels": processor.video_max_pixels, "image_min_pixels": processor.video_min_pixels}
    sampling = {name: getattr(processor, name) for name in ("video_fps", "video_maxlen")}
    return dict(plugin._regularize_videos(videos, **limits, **sampling))


def _times(plugin: BasePlugin, videos: dict[str, Any]) -> Body:
    """All frames are to be taken, for vLLM takes 32 unless told, at the rate at which they were sampled."""
    if not videos:
        return {}
    taken: Body = {"num_frames": -1}
    told: Body = {"media_io_kwargs": {"video": taken}}
    if rates := videos.get("fps_per_video"):
        if isinstance(plugin, Qwen3VLPlugin):
            taken["fps"] = rates[0]  # vLLM has one rate for all videos of a request
        else:
            metadata = map(_metadata, rates, map(len, videos["videos"]))
            told["mm_processor_kwargs"] = {"video_metadata": list(metadata)}
    return told


def _metadata(frames_per_second: float, num_frames: int) -> Body:
    return {
        "fps": frames_per_second,
        "total_num_frames": num_frames,
        "duration": num_frames / frames_per_second,
        "frames_indices": list(range(num_frames)),
    }


def _sounds(plugin: BasePlugin, processor: Any, audios: list[Any]) -> list[Body]:
    if not audios:
        return []
    from scipy.io import wavfile

    regular = plugin._regularize_audios(audios, sampling_rate=processor.audio_sampling_rate)
    parts = []
    for sound, rate in zip(regular["audios"], regular["sampling_rates"], strict=True):
        file = BytesIO()
        wavfile.write(file, int(rate), sound)  # float32 stays float32
        parts.append({"type": "audio_url", "audio_url": {"url": _data_url("audio/wav", file.getvalue())}})
    return parts


def _picture(image: "Image") -> Body:
    return {"type": "image_url", "image_url": {"url": _data_url("image/png", _png(image))}}


def _video(frames: Sequence["Image"]) -> Body:
    # vLLM's name for a list of pictures, of whatever format each is.
    url = "data:video/jpeg;base64," + ",".join(b64encode(_png(frame)).decode() for frame in frames)
    return {"type": "video_url", "video_url": {"url": url}}


def _png(image: "Image") -> bytes:
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
