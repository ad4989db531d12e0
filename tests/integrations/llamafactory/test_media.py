"""Pictures, videos and sounds through LLaMA-Factory's templates: the same text as on its huggingface engine."""

import base64
import hashlib
import io
import json
from functools import cache

import pytest

from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import RequestError
from ascend_adapters.testing import FakeBackend
from tests.references import reference
from tests.vision_models import VISION_FAMILIES

TEMPLATES = {
    "Qwen2.5-VL": "qwen2_vl",
    "Qwen2-VL": "qwen2_vl",
    "Qwen3-VL": "qwen3_vl_nothink",
    "LLaVA on CLIP": "llava",
}


def pictures(*sizes):
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


@cache
def small_and_large():
    return pictures((60, 44), (80, 100))


def small():
    return small_and_large()[0]


def silence():
    import numpy as np

    return np.zeros(9, np.float32)


def on_pictures():
    small, large = small_and_large()
    return [
        ("What is this?", {}),
        ("What is this?", {"images": [small]}),
        ("<image> or <image>?", {"images": [small, large]}),
    ]


def on_videos():
    _, large = small_and_large()
    film = pictures((40, 56), (40, 56), (40, 56), (40, 56))
    return [("What happens?", {"videos": [film]}), ("<image> and <video>!", {"images": [large], "videos": [film[:2]]})]


def arguments(folder, backend, template):
    settings = {"kv_cache_memory_bytes": 64 << 20, "max_num_batched_tokens": 256}
    return {
        "model_name_or_path": str(folder),
        "infer_backend": backend,
        "template": template,
        "infer_dtype": "float32",
        "do_sample": False,
        "max_new_tokens": 12,
        "vllm_config": json.dumps(settings),
    }


def with_positions(engine):
    """LLaMA-Factory 0.9.5 gives its huggingface engine no types of tokens, without which transformers 5.5.4 takes the
    patches of Qwen's models for text; training gives them. See also positions_of_patches.
    """
    from tests.e2e.vision import positions_of_patches

    model, generate = engine.model, engine.model.generate
    if not hasattr(model.config, "video_token_id"):
        return

    def generate_with_types(inputs, **settings):
        types = (inputs == model.config.image_token_id).int() + 2 * (inputs == model.config.video_token_id).int()
        return generate(inputs=inputs, **settings, **({"mm_token_type_ids": types} if types.any() else {}))

    model.generate = generate_with_types
    model.model.get_vision_position_ids = positions_of_patches


def answers(model, asked):
    told = []
    for question, media in asked:
        (response,) = model.chat([{"role": "user", "content": question}], **media)
        # Bytes of a character that was cut: the engine holds them back, the huggingface engine prints a sign for each.
        told.append([response.response_text.rstrip("\ufffd"), response.prompt_length])
    return told


def answers_on_huggingface(folder, template, asked):
    """Of LLaMA-Factory's own engine. They are kept (tests/references.py)."""
    from llamafactory.chat.chat_model import ChatModel

    def compute():
        model = ChatModel(arguments(folder, "huggingface", template))
        with_positions(model.engine)
        return answers(model, asked)

    question = ["pictures", template, [[text, fingerprint(media)] for text, media in asked]]
    return reference("llamafactory", question, [folder], compute)


def fingerprint(media):
    """Of all pictures, and of the pictures that are a video's frames."""
    frames = [each if isinstance(each, list) else [each] for kind in media.values() for each in kind]
    return hashlib.sha256(b"".join(picture.tobytes() for pictures in frames for picture in pictures)).hexdigest()


@pytest.mark.engine
@pytest.mark.usefixtures("_event_loop")
@pytest.mark.parametrize(
    "name", [name if name == "Qwen2.5-VL" else pytest.param(name, marks=pytest.mark.slow) for name in TEMPLATES]
)
def test_the_engine_sees_what_the_huggingface_engine_sees(name, tmp_path):
    import torch
    from llamafactory.chat.chat_model import ChatModel

    folder = VISION_FAMILIES[name].build(tmp_path / "model")
    # Its huggingface engine cannot read videos for Qwen3-VL (0.9.5 with transformers 5.5.4).
    asked = on_pictures() + (on_videos() if name in ("Qwen2-VL", "Qwen2.5-VL") else [])
    wanted = answers_on_huggingface(folder, TEMPLATES[name], asked)
    assert len({text for text, _ in wanted}) > 1
    ours = ChatModel(arguments(folder, "ascend", TEMPLATES[name]))
    try:
        with torch.inference_mode():
            assert answers(ours, asked) == wanted
        question, media = asked[1]
        streamed = "".join(ours.stream_chat([{"role": "user", "content": question}], **media))
        assert streamed.rstrip("\ufffd") == wanted[1][0]
        assert run_sync(ours.engine.model.info()).modalities
    finally:
        ours.engine.close()


@pytest.fixture(scope="module")
def seeing_folder(tmp_path_factory):
    return VISION_FAMILIES["Qwen2-VL"].build(tmp_path_factory.mktemp("seeing") / "model")


@pytest.fixture
def engine(seeing_folder):
    """Of a model that takes pictures, and a backend that tells what it was asked."""
    from llamafactory.hparams import get_infer_args

    from llamafactory_ascend.engine import AscendEngine

    backend = FakeBackend("ok", modalities=("text", "image", "video"))
    return AscendEngine(*get_infer_args(arguments(seeing_folder, "ascend", "qwen2_vl")), backend=backend)


def user(text):
    return [{"role": "user", "content": text}]


async def test_large_pictures_are_scaled_as_training_scales_them(engine):
    from PIL import Image

    (large,) = pictures((1200, 1200))
    await engine.chat(user("What is this?"), images=[large])
    (body,) = engine.model.bodies
    text, picture = body["messages"][0]["content"]
    assert text["text"].endswith(
        "<|vision_start|><|image_pad|><|vision_end|>What is this?<|im_end|>\n<|im_start|>assistant\n"
    )
    sent = Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2])))
    assert sent.size == (768, 768)


async def test_pictures_may_be_files_or_bytes(engine, tmp_path):
    small().save(tmp_path / "small.png")
    given = [str(tmp_path / "small.png"), (tmp_path / "small.png").read_bytes(), small()]
    for picture in given:
        await engine.chat(user("What is this?"), images=[picture])
    sent = [body["messages"][0]["content"][1] for body in engine.model.bodies]
    assert sent[0] == sent[1] == sent[2]


async def test_every_frame_of_a_video_is_sent(engine):
    film = pictures(*[(40, 56)] * 40)
    await engine.chat(user("What happens?"), videos=[film])
    (body,) = engine.model.bodies
    frames = body["messages"][0]["content"][1]["video_url"]["url"].split(",")[1:]
    assert len(frames) == 40
    assert body["media_io_kwargs"] == {"video": {"num_frames": -1}}
    assert body["mm_processor_kwargs"]["video_metadata"][0]["fps"] == 2.0


def test_sounds_are_sent_as_they_were_resampled(engine):
    import numpy as np
    from scipy.io import wavfile

    from llamafactory_ascend.media import Media

    sound = np.sin(np.arange(1600, dtype=np.float32))
    engine.processor.audio_sampling_rate = 16000
    (part,) = Media(audios=[sound]).body(engine.template.mm_plugin, engine.processor)["parts"]
    rate, sent = wavfile.read(io.BytesIO(base64.b64decode(part["audio_url"]["url"].partition(",")[2])))
    assert rate == 16000
    assert np.array_equal(sent, sound)


@pytest.mark.parametrize(
    ("text", "media", "message"),
    [
        ("What is this?", {"images": ["no/such.png"]}, r"cannot be read: .*no/such\.png"),
        ("What is this?", {"images": [b"no picture"]}, "cannot be read: cannot identify image"),
        ("<image> or <image>?", {"images": [small]}, "number of images does not match"),
        ("What is this?", {"audios": [silence]}, "does not support audio"),
    ],
)
async def test_what_cannot_be_read_or_placed_is_refused(engine, text, media, message):
    made = {kind: [one() if callable(one) else one for one in several] for kind, several in media.items()}
    with pytest.raises(RequestError, match=message):
        await engine.chat(user(text), **made)


async def test_a_prompt_whose_tokens_are_not_those_of_its_text_is_not_sent_with_pictures(engine):
    prompt = engine.prompt(user("What is this?"), images=[small()])
    half_a_character = next(i for i in range(256) if engine.tokenizer.decode([i]) == "\ufffd")
    prompt.token_ids.append(half_a_character)
    with pytest.raises(RequestError, match="the template's tokens cannot be sent as text"):
        await engine.answer(prompt)
