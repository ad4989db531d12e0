"""vLLM's media connector, which takes memory for a picture or a video only after a look at how large it is."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pybase64
from PIL import Image
from urllib3.util import Url
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector, MediaIO, VideoMediaIO
from vllm.multimodal.media.image import ImageMediaIO

NAME = "ascend"  # among vLLM's connectors


@MEDIA_CONNECTOR_REGISTRY.register(NAME)
class BoundedMediaConnector(MediaConnector):
    """Refuses what is not allowed, no picture, or too large, each with the remedy."""

    # Of this process: vLLM gives a connector no settings of ours.
    max_image_pixels = 0
    max_video_pixels = 0

    def load_from_url(self, url: str, media_io: MediaIO[Any], **settings: Any) -> Any:
        """See vLLM. Raises ValueError for all that is the caller's mistake."""
        try:
            return super().load_from_url(url, self._bounded(media_io), **settings)
        except (RuntimeError, NotImplementedError) as error:
            raise ValueError(str(error)) from error

    async def load_from_url_async(self, url: str, media_io: MediaIO[Any], **settings: Any) -> Any:
        """See load_from_url."""
        try:
            return await super().load_from_url_async(url, self._bounded(media_io), **settings)
        except (RuntimeError, NotImplementedError) as error:
            raise ValueError(str(error)) from error

    def _bounded(self, media_io: MediaIO[Any]) -> MediaIO[Any]:
        if isinstance(media_io, ImageMediaIO):
            return BoundedImages(media_io, self.max_image_pixels)
        if isinstance(media_io, VideoMediaIO):
            return BoundedVideos(media_io, self.max_image_pixels, self.max_video_pixels)
        return media_io

    def _assert_url_in_allowed_media_domains(self, url_spec: Url) -> None:
        try:
            super()._assert_url_in_allowed_media_domains(url_spec)
        except ValueError as error:
            raise ValueError(
                f"media from the host {url_spec.hostname} is not allowed: send it as a data: URL, or name the host in "
                "allowed_media_domains where the engine is started."
            ) from error


class BoundedImages(MediaIO[Any]):
    """Loads pictures of at most max_pixels."""

    def __init__(self, loader: MediaIO[Any], max_pixels: int) -> None:
        self.loader = loader
        self.max_pixels = max_pixels

    def load_bytes(self, data: bytes) -> Any:
        """Raises ValueError for what is no picture, or too large a one."""
        check_picture(data, self.max_pixels)
        return self.loader.load_bytes(data)

    def load_base64(self, media_type: str, data: str) -> Any:
        return self.load_bytes(pybase64.b64decode(data, validate=True))

    def load_file(self, filepath: Path) -> Any:
        return self.load_bytes(filepath.read_bytes())


class BoundedVideos(MediaIO[Any]):
    """Loads videos whose frames have at most max_pixels together."""

    def __init__(self, loader: VideoMediaIO, max_image_pixels: int, max_pixels: int) -> None:
        self.loader = loader
        self.max_pixels = max_pixels
        # Videos may be sent as a list of pictures.
        loader.image_io = BoundedImages(loader.image_io, max_image_pixels)

    def load_bytes(self, data: bytes) -> Any:
        """Raises ValueError for what is no video, or too large a one."""
        check_video(data, self.loader.num_frames, self.max_pixels)
        return self.loader.load_bytes(data)

    def load_base64(self, media_type: str, data: str) -> Any:
        if media_type.lower() == "video/jpeg":
            return self.loader.load_base64(media_type, data)
        return self.load_bytes(pybase64.b64decode(data, validate=True))

    def load_file(self, filepath: Path) -> Any:
        return self.load_bytes(filepath.read_bytes())


def check_picture(data: bytes, max_pixels: int) -> None:
    """Raises ValueError for what is no picture, or one of more pixels; reads only its header."""
    try:
        width, height = Image.open(BytesIO(data)).size
    except Image.DecompressionBombError:
        raise ValueError("this picture has more pixels than Pillow decodes at all: scale it down.") from None
    except OSError:
        raise ValueError("these bytes are not a picture of a known format: send a PNG, JPEG or WebP file.") from None
    if width * height > max_pixels:
        raise _too_large("this picture", f"{width} x {height}", max_pixels, "max_image_pixels")


def check_video(data: bytes, num_frames: int, max_pixels: int) -> None:
    """Raises ValueError for what is no video, or one whose frames have more pixels; reads only its header.

    num_frames  taken from the video at most; below 0: all that it has
    """
    import cv2
    from vllm.multimodal.video import OpenCVVideoBackendMixin

    try:
        video = OpenCVVideoBackendMixin.open_video_capture(data)
    except ValueError:
        raise ValueError("these bytes are not a video of a known format: send an MP4 or WebM file.") from None
    fields = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT)
    width, height, length = (int(video.get(field)) for field in fields)
    taken = length if num_frames < 0 else min(num_frames, length)
    if taken * width * height > max_pixels:
        size = f"{taken} frames of {width} x {height}"
        raise _too_large("this video", size, max_pixels, "max_video_pixels")


def _too_large(what: str, size: str, max_pixels: int, setting: str) -> ValueError:
    return ValueError(
        f"{what} has {size} pixels, and at most {max_pixels:,} are decoded: scale it down, or raise {setting} in "
        "--additional-config."
    )
