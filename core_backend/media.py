"""Pictures and videos that come with requests: bounded before they are decoded, refused with the remedy."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pybase64
from PIL import Image
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector, VideoMediaIO
from vllm.multimodal.media.base import MediaIO
from vllm.multimodal.media.image import ImageMediaIO

NAME = "ascend"  # of the connector, in the variable VLLM_MEDIA_CONNECTOR


@MEDIA_CONNECTOR_REGISTRY.register(NAME)
class BoundedMediaConnector(MediaConnector):
    """vLLM's connector; it looks at how large a picture is before it takes the memory for it."""

    max_image_pixels = 0  # set by bound_images, before the first request

    def load_from_url(self, url: str, media_io: MediaIO[Any], **settings: Any) -> Any:
        """See vLLM. Raises ValueError for what is not allowed, no picture, or too large a one."""
        try:
            return super().load_from_url(url, self._bounded(media_io), **settings)
        except (RuntimeError, NotImplementedError) as error:  # vLLM's, for URLs; they are the caller's mistakes
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
            # Of videos that are sent as a list of pictures.
            media_io.image_io = BoundedImages(media_io.image_io, self.max_image_pixels)
        return media_io


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


def check_picture(data: bytes, max_pixels: int) -> None:
    """Raises ValueError for what is no picture, or one of more pixels; reads only its header."""
    try:
        width, height = Image.open(BytesIO(data)).size
    except Image.DecompressionBombError:
        raise _too_large(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels", max_pixels) from None
    except OSError:
        raise ValueError("these bytes are not a picture of a known format: send a PNG, JPEG or WebP file.") from None
    if width * height > max_pixels:
        raise _too_large(f"{width} x {height} = {width * height:,} pixels", max_pixels)


def _too_large(size: str, max_pixels: int) -> ValueError:
    return ValueError(
        f"this picture has {size}, and at most {max_pixels:,} are decoded: scale it down, or raise max_image_pixels "
        "in --additional-config."
    )


def bound_images(max_pixels: int) -> None:
    """The limit of this process."""
    BoundedMediaConnector.max_image_pixels = max_pixels
