"""What comes with a request is looked at before it is decoded."""

import base64
import io
import struct
import zlib

import pytest

from core_backend.config import BackendConfig

MAX_PIXELS = 1000


@pytest.fixture(autouse=True)
def connector(monkeypatch):
    """Builds a connector; both limits are low. Its class is not imported at the top, as that takes seconds."""
    from core_backend.media_connector import BoundedMediaConnector

    monkeypatch.setattr(BoundedMediaConnector, "max_image_pixels", MAX_PIXELS)
    monkeypatch.setattr(BoundedMediaConnector, "max_video_pixels", MAX_PIXELS)

    def build(**settings) -> BoundedMediaConnector:
        return BoundedMediaConnector(**{"allowed_media_domains": ["pictures.invalid"], **settings})

    return build


def picture(width: int, height: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def picture_without_content(width: int, height: int) -> bytes:
    """A PNG's header only: whoever decodes it fails, and whoever reads its size does not."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + end


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def test_a_picture_within_the_limit_is_loaded(connector):
    loaded = connector().fetch_image(data_url(picture(40, 25)))
    assert loaded.size == (40, 25)


def test_a_picture_above_the_limit_is_refused_by_its_header_with_the_remedy(connector):
    with pytest.raises(ValueError, match=r"this picture has 9000 x 9000 pixels.*1,000.*scale it.*max_image_pixels"):
        connector().fetch_image(data_url(picture_without_content(9000, 9000)))


def test_a_picture_above_pillows_own_limit_is_refused_too():
    from core_backend.media_connector import check_picture

    with pytest.raises(ValueError, match="more pixels than Pillow decodes at all"):
        check_picture(picture_without_content(60000, 60000), 1 << 40)


async def test_the_server_fetches_with_the_same_limit(connector):
    with pytest.raises(ValueError, match="9000 x 9000"):
        await connector().fetch_image_async(data_url(picture_without_content(9000, 9000)))


def test_bytes_that_are_no_picture_are_refused(connector):
    with pytest.raises(ValueError, match="not a picture of a known format"):
        connector().fetch_image(data_url(b"hello"))


def test_a_request_cannot_raise_the_limit(connector):
    own = connector(media_io_kwargs={"image": {"max_image_pixels": 1 << 40}})
    with pytest.raises(ValueError, match="9000 x 9000"):
        own.fetch_image(data_url(picture_without_content(9000, 9000)))


def test_a_host_that_is_not_allowed_is_named_with_the_remedy(connector):
    with pytest.raises(ValueError, match=r"other\.invalid is not allowed.*data: URL.*allowed_media_domains"):
        connector().fetch_image("http://other.invalid/a.png")


def test_a_file_is_read_only_below_the_allowed_folder(connector, tmp_path):
    (tmp_path / "a.png").write_bytes(picture(2, 2))
    with pytest.raises(ValueError, match="allowed-local-media-path"):
        connector().fetch_image(f"file://{tmp_path}/a.png")
    allowed = connector(allowed_local_media_path=str(tmp_path))
    assert allowed.fetch_image(f"file://{tmp_path}/a.png").size == (2, 2)
    with pytest.raises(ValueError, match="allowed-local-media-path"):
        allowed.fetch_image(f"file://{tmp_path}/../a.png")


def video(width: int, height: int, num_frames: int, file) -> bytes:
    import cv2
    import numpy as np

    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), 2, (width, height))
    for i in range(num_frames):
        writer.write(np.full((height, width, 3), i, dtype=np.uint8))
    writer.release()
    return file.read_bytes()


def test_a_video_is_bounded_by_all_the_frames_that_are_taken_from_it(connector, tmp_path, monkeypatch):
    from core_backend.media_connector import BoundedMediaConnector

    film = data_url(video(32, 16, 6, tmp_path / "film.mp4"), "video/mp4")
    with pytest.raises(ValueError, match=r"this video has 6 frames of 32 x 16 pixels.*max_video_pixels"):
        connector().fetch_video(film)
    monkeypatch.setattr(BoundedMediaConnector, "max_video_pixels", 6 * 32 * 16)
    frames, _ = connector().fetch_video(film)
    assert frames.shape == (6, 16, 32, 3)


def test_a_video_sent_as_pictures_is_bounded_by_each(connector):
    frames = ",".join(base64.b64encode(content).decode() for content in (picture(2, 2), picture(40, 40)))
    with pytest.raises(ValueError, match="40 x 40 pixels"):
        connector().fetch_video(f"data:video/jpeg;base64,{frames}")


def test_bytes_that_are_no_video_are_refused(connector):
    with pytest.raises(ValueError, match="not a video of a known format"):
        connector().fetch_video(data_url(b"hello", "video/mp4"))


@pytest.mark.parametrize("limit", [0, -1, True, "many"])
def test_a_limit_is_a_positive_number(limit):
    with pytest.raises(ValueError, match=r"max_image_pixels=.*at least 1"):
        BackendConfig(max_image_pixels=limit)
