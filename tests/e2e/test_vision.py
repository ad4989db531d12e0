"""Pictures and videos in chat messages, to an embedded engine of a tiny vision-language model."""

import base64

import pytest

from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import RequestError
from tests.core_backend.test_media import picture_without_content
from tests.pictures import png

pytestmark = pytest.mark.engine


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


def test_the_engine_tells_what_its_model_takes(seeing_engine):
    assert run_sync(seeing_engine.info()).modalities == ("text", "image", "video")


def test_a_picture_is_seen(seeing_engine):
    first, again, other = (ask(seeing_engine, image(png(seed)))[0] for seed in (1, 1, 2))
    assert first == pytest.approx(again, abs=1e-4)
    assert first != pytest.approx(other, abs=1e-2)


def test_two_pictures_and_a_video_take_as_many_tokens_as_they_have_patches(seeing_engine):
    nothing, one, two, film = (
        ask(seeing_engine, *parts)[1]
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
def test_what_is_no_picture_is_refused_and_the_engine_serves_on(seeing_engine, case):
    part, message = REFUSED[case]
    with pytest.raises(RequestError, match=message):
        ask(seeing_engine, part)
    assert len(ask(seeing_engine, image(png(1)))[0]) == 8


def test_more_pictures_than_allowed_are_refused(seeing_engine):
    with pytest.raises(RequestError, match=r"At most 2 image"):
        ask(seeing_engine, *(image(png(seed)) for seed in range(3)))
