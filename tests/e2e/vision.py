"""One vision-language family after the other through Hugging Face and through the engine, in this process.

Run as `python -m tests.e2e.vision FOLDER NAME...`, as tests/e2e/families.py is.
"""

import hashlib
import json
import sys
import traceback
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tests.e2e.as_library import use_vllm_as_library
from tests.e2e.families import NUM_NEW_TOKENS, SETTINGS, Result
from tests.references import reference
from tests.vision_models import NUM_BYTES, VISION_FAMILIES, VisionFamily

FRAMES_PER_SECOND = 2.0
TEXT_TOKENS = list(range(NUM_BYTES))


@dataclass(frozen=True)
class Request:
    """A prompt with its pictures and videos."""

    prompt: str
    images: list[np.ndarray] = field(default_factory=list)
    videos: list[np.ndarray] = field(default_factory=list)

    def fingerprint(self) -> list[str]:
        """What tells it from other requests."""
        media = [hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in (*self.images, *self.videos)]
        return [self.prompt, *media]

    def for_engine(self, family: VisionFamily) -> dict[str, Any]:
        """As vLLM's LLM.generate takes it."""
        media: dict[str, Any] = {}
        if self.images:
            media["image"] = [_picture(image) for image in self.images]
        if self.videos:
            media["video"] = [(video, {**_metadata(video), "do_sample_frames": False}) for video in self.videos]
        if not media:
            return {"prompt": self.prompt}
        settings: dict[str, Any] = {}
        if self.videos and family.must_be_told_times:
            settings = {"video_metadata": [_metadata(video) for video in self.videos]}
        return {"prompt": self.prompt, "multi_modal_data": media, "mm_processor_kwargs": settings}


def requests(family: VisionFamily) -> list[Request]:
    """Text only, one picture, a picture longer than a step, two of different sizes, a video, all kinds together."""
    generator = np.random.default_rng(3)
    small, wide, large = (generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES_OF_PICTURES)
    image, start, end = family.image, "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    asked = [
        Request(f"{start}What is this?{end}"),
        Request(f"{start}{image}What is this?{end}", [small]),
        Request(f"{start}Look: {image} What do you see?{end}", [large]),
        Request(f"{start}{image} or {image}?{end}", [wide, small]),
        # Its beginning is that of the one but last, with which it shares blocks of the cache.
        Request(f"{start}Look: {image} What colour has it?{end}", [large]),
        # Another picture under the same text: blocks must not be shared.
        Request(f"{start}Look: {image} What do you see?{end}", [255 - large]),
    ]
    if family.video is not None:
        film = generator.integers(0, 256, (4, 32, 40, 3), dtype=np.uint8)
        asked.append(Request(f"{start}{family.video}What happens?{end}", videos=[film]))
        asked.append(Request(f"{start}{image} and {family.video}!{end}", [wide], [film[:2]]))
    return asked


SIZES_OF_PICTURES = ((32, 24), (24, 48), (80, 88))


def _picture(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def _metadata(video: np.ndarray) -> dict[str, Any]:
    return {
        "fps": FRAMES_PER_SECOND,
        "duration": len(video) / FRAMES_PER_SECOND,
        "total_num_frames": len(video),
        "frames_indices": list(range(len(video))),
        "video_backend": "opencv",
    }


class HuggingFace:
    """The model in fp32, by the plain formulas. Its answers are kept (tests/references.py)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def model(self) -> Any:
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            self._folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        if hasattr(model.model, "get_vision_position_ids"):
            model.model.get_vision_position_ids = positions_of_patches
        return model

    @cached_property
    def processor(self) -> Any:
        return transformers.AutoProcessor.from_pretrained(self._folder)

    def inputs(self, request: Request) -> dict[str, torch.Tensor]:
        media: dict[str, Any] = {}
        if request.images:
            media["images"] = [_picture(image) for image in request.images]
        if request.videos:
            media["videos"] = [torch.from_numpy(video).permute(0, 3, 1, 2) for video in request.videos]
            media["video_metadata"] = [_metadata(video) for video in request.videos]
            media["do_sample_frames"] = False
        return dict(self.processor(text=[request.prompt], return_tensors="pt", **media))

    def answers(self, asked: list[Request]) -> list["Answer"]:
        question = ["vision", NUM_NEW_TOKENS, [request.fingerprint() for request in asked]]
        compute = lambda: [vars(self.answer(request)) for request in asked]  # noqa: E731
        return [Answer(**answer) for answer in reference("transformers", question, [self._folder], compute)]

    @torch.inference_mode()
    def answer(self, request: Request) -> "Answer":
        """Greedy tokens, and the log-probability of every token but the first given those before it."""
        inputs = self.inputs(request)
        num_vocab = self.model.config.get_text_config().vocab_size
        out = self.model.generate(
            **inputs,
            do_sample=False,
            min_new_tokens=NUM_NEW_TOKENS,
            max_new_tokens=NUM_NEW_TOKENS,
            suppress_tokens=list(range(NUM_BYTES, num_vocab)),
            pad_token_id=0,
        )
        num_new = out.shape[1] - inputs["input_ids"].shape[1]
        longer = {**inputs, "input_ids": out, "attention_mask": torch.ones_like(out)}
        if "mm_token_type_ids" in inputs:
            longer["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, num_new))
        logprobs = self.model(**longer).logits[0, :-1].float().log_softmax(-1)
        of_tokens = logprobs.gather(1, out[0, 1:, None]).flatten().tolist()
        return Answer(inputs["input_ids"][0].tolist(), out[0, -num_new:].tolist(), of_tokens)


def positions_of_patches(
    start: int, grid: torch.Tensor, _: int, merge: int, time_interval: int = 1, device: Any = None
) -> torch.Tensor:
    """[3, num_tokens]: time, height and width of each token of a picture or video.

    In place of transformers' own, which in 5.5.4 gives all frames of a video the same time, and counts its rows
    through all frames. Source: arXiv 2409.12191, section 2.1.
    """
    num_frames, height, width = int(grid[0]), int(grid[1]) // merge, int(grid[2]) // merge
    return start + torch.tensor(
        [(t * time_interval, y, x) for t in range(num_frames) for y in range(height) for x in range(width)]
    ).t().to(device)


@dataclass(frozen=True)
class Answer:
    """What Hugging Face says."""

    prompt: list[int]  # with a token for every patch
    tokens: list[int]
    logprobs: list[float]


def compare(family: VisionFamily, folder: Path) -> Result:
    """Both answers to the same requests. What the engine refuses is a result too."""
    result = Result(family.name)
    wanted = HuggingFace(family.build(folder)).answers(requests(family))
    try:
        _ask_engine(family, folder, wanted, result)
    except Exception as error:
        traceback.print_exc()
        result.error = f"{type(error).__name__}: {error}"
    return result


def _ask_engine(family: VisionFamily, folder: Path, wanted: list[Answer], result: Result) -> None:
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    from core_backend.device import current_device

    result.device = str(current_device())
    settings: dict[str, Any] = {"temperature": 0, "allowed_token_ids": TEXT_TOKENS, "logprobs": 0}
    greedy = SamplingParams(max_tokens=NUM_NEW_TOKENS, min_tokens=NUM_NEW_TOKENS, **settings)
    scoring = SamplingParams(max_tokens=1, prompt_logprobs=0, **settings)
    given = [request.for_engine(family) for request in requests(family)]
    llm = None
    try:
        llm = LLM(model=str(folder), **{**SETTINGS, "limit_mm_per_prompt": {"image": 2, "video": 1}})
        # Twice: the second time, prompts are found in the prefix cache.
        for _ in range(2):
            outputs = llm.generate(given, greedy, use_tqdm=False)
            result.num_cached_tokens = sum(output.num_cached_tokens or 0 for output in outputs)
            for output, answer in zip(outputs, wanted, strict=True):
                _compare_tokens(output, answer, result)
        for output, answer in zip(llm.generate(given, scoring, use_tqdm=False), wanted, strict=True):
            _compare_logprobs(output.prompt_logprobs[1:], answer.prompt[1:], answer.logprobs, result)
    finally:
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()


def _compare_tokens(output: Any, answer: Answer, result: Result) -> None:
    if output.prompt_token_ids != answer.prompt:
        raise AssertionError(f"another prompt: {output.prompt_token_ids} instead of {answer.prompt}")
    generated = output.outputs[0]
    result.num_tokens += len(answer.tokens)
    num_different = sum(a != b for a, b in zip(generated.token_ids, answer.tokens, strict=True))
    result.num_different += num_different
    if num_different == 0:
        _compare_logprobs(generated.logprobs, answer.tokens, answer.logprobs[-len(answer.tokens) :], result)


def _compare_logprobs(entries: list[Any], tokens: list[int], expected: list[float], result: Result) -> None:
    for entry, token, logprob in zip(entries, tokens, expected[: len(entries)], strict=True):
        difference = abs(entry[token].logprob - logprob)
        result.max_logprob_difference = max(result.max_logprob_difference, difference)


def main() -> None:
    use_vllm_as_library()
    from core_backend import upstream_patches

    upstream_patches.inspect_model_in_process()  # no process of its own for every architecture
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or VISION_FAMILIES:
        result = compare(VISION_FAMILIES[name], folder / name.replace(" ", "-").lower())
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
