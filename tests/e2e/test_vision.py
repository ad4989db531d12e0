"""Pictures and videos in chat messages, to an embedded engine of a tiny vision-language model."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import RequestError
from tests.core_backend.test_media import picture_without_content
from tests.vision_models import VISION_FAMILIES

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """An engine in fp32, so that what it made of a picture can be compared."""
    folder = VISION_FAMILIES["Qwen2-VL"].build(tmp_path_factory.mktemp("vision") / "qwen2-vl")
    backend = EmbeddedBackend(
        str(folder),
        dtype="float32",
        kv_cache_memory_bytes=64 << 20,
        max_num_batched_tokens=256,
        limit_mm_per_prompt={"image": 2, "video": 1},
    )
    run_sync(backend.info())
    yield backend
    run_sync(backend.close())


def png(seed, size=(32, 24)):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def image(content, kind="image/png"):
    return image_at(f"data:{kind};base64,{base64.b64encode(content).decode()}")


def image_at(url):
    return {"type": "image_url", "image_url": {"url": url}}


def video(*frames):
    content = ",".join(base64.b64encode(frame).decode() for frame in frames)
    return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{content}"}}


def ask(backend, *parts):
    message = {"role": "user", "content": [*parts, {"type": "text", "text": "What is this?"}]}
    body = {"messages": [message], "temperature": 0, "max_tokens": 8, "ignore_eos": True}
    answer = run_sync(backend.chat({**body, "allowed_token_ids": list(range(97, 123)), "logprobs": True}))
    return [token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]], answer["usage"]["prompt_tokens"]


def test_the_engine_tells_what_its_model_takes(seeing):
    assert run_sync(seeing.info()).modalities == ("text", "image", "video")


def test_a_picture_is_seen(seeing):
    first, again, other = (ask(seeing, image(png(seed)))[0] for seed in (1, 1, 2))
    assert first == pytest.approx(again, abs=1e-4)
    assert first != pytest.approx(other, abs=1e-2)


def test_two_pictures_and_a_video_take_as_many_tokens_as_they_have_patches(seeing):
    nothing, one, two, film = (
        ask(seeing, *parts)[1]
        for parts in ([], [image(png(1))], [image(png(1)), image(png(2))], [video(png(1), png(2))])
    )
    assert one - nothing == 4 * 3 + 2
    assert two - nothing == 2 * (one - nothing)
    assert film - nothing == one - nothing  # two frames are one step of time


REFUSED = {
    "no picture": (image(b"hello"), "not a picture of a known format"),
    "100 megapixels": (image(picture_without_content(10000, 10000)), r"10000 x 10000 pixels.*max_image_pixels"),
    "a host that is not allowed": (image_at("http://host.invalid/a.png"), r"host\.invalid is not allowed"),
    "a file that is not allowed": (image_at("file:///etc/hostname"), "allowed-local-media-path"),
    "a video that is none": (
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,aGVsbG8="}},
        "not a video of a known format",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_picture_is_refused_and_the_engine_serves_on(seeing, case):
    part, message = REFUSED[case]
    with pytest.raises(RequestError, match=message):
        ask(seeing, part)
    assert len(ask(seeing, image(png(1)))[0]) == 8


def test_more_pictures_than_allowed_are_refused(seeing):
    with pytest.raises(RequestError, match=r"At most 2 image"):
        ask(seeing, *(image(png(seed)) for seed in range(3)))
