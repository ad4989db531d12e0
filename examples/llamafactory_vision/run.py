"""Teaches a tiny vision model the names of colours, then shows it pictures that it has not seen.

    python examples/llamafactory_vision/run.py [FOLDER]

The model is a Qwen2-VL of two layers with random weights, so that it trains in a minute; the pictures are discs of one
colour on a noisy ground. FOLDER gets all: the model, the pictures, the trained model and the plot of its loss.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from llamafactory_ascend import register

HERE = Path(__file__).parent
QUESTION = "<image>Which colour is this?"
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 40),
    "blue": (30, 60, 220),
    "yellow": (235, 220, 40),
    "purple": (140, 40, 170),
    "orange": (245, 140, 20),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
}
NUM_PICTURES = 320  # to learn from
NUM_HELD_OUT = 40
SIDE = 56  # pixels; 4 x 4 patches
MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def build_model(folder: Path) -> None:
    """A Qwen2-VL with SmolLM2's tokenizer, to which the marks of pictures are added."""
    import torch
    from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor
    from transformers.models.qwen2_vl import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(pull(CATALOGUE["smollm2-135m-instruct"], Progress("tokenizer")))
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(MARKS))
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={"depth": 2, "embed_dim": 64, "num_heads": 2, "hidden_size": 128, "patch_size": 14},
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        video_token_id=video,
    )
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    sides = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    Qwen2VLProcessor(Qwen2VLImageProcessor(size=sides), tokenizer, Qwen2VLVideoProcessor(size=sides)).save_pretrained(
        folder
    )


def draw(colour: str, generator: np.random.Generator) -> Image.Image:
    """A disc of the colour, more or less, somewhere on a grey ground."""
    ground = generator.normal(128, 20, (SIDE, SIDE, 3))
    x, y, radius = generator.integers(20, 36), generator.integers(20, 36), generator.integers(12, 20)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    ground[disc] = np.array(COLOURS[colour]) + generator.normal(0, 12, (int(disc.sum()), 3))
    return Image.fromarray(ground.clip(0, 255).astype(np.uint8))


def write_pictures(folder: Path) -> None:
    """A data set of LLaMA-Factory's: pictures, questions and answers."""
    generator = np.random.default_rng(0)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(NUM_PICTURES):
        colour = list(COLOURS)[number % len(COLOURS)]
        name = f"pictures/{number}.png"
        draw(colour, generator).save(folder / name)
        rows.append({"instruction": QUESTION, "input": "", "output": colour, "images": [name]})
    (folder / "pictures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"prompt": "instruction", "query": "input", "response": "output", "images": "images"}
    described = {"pictures": {"file_name": "pictures.jsonl", "columns": columns}}
    (folder / "dataset_info.json").write_text(json.dumps(described, indent=2))


def train(folder: Path) -> None:
    """`llamafactory-ascend train`, which is LLaMA-Factory's own."""
    arguments = [
        f"model_name_or_path={folder / 'model'}",
        f"dataset_dir={folder}",
        f"output_dir={folder / 'trained'}",
        "overwrite_output_dir=true",
    ]
    command = [sys.executable, "-m", "llamafactory_ascend", "train", "train.yaml", *arguments]
    subprocess.run(command, cwd=HERE, check=True)


def held_out() -> list[tuple[str, Image.Image]]:
    """Colours and pictures that are none of the training's."""
    generator = np.random.default_rng(1)
    colours = [list(COLOURS)[number % len(COLOURS)] for number in range(NUM_HELD_OUT)]
    return [(colour, draw(colour, generator)) for colour in colours]


def name_colours(folder: Path, pictures: list[Image.Image], backend: str = "ascend") -> list[str]:
    """What the trained model says to each picture."""
    from llamafactory.chat import ChatModel

    arguments: dict[str, Any] = {
        "model_name_or_path": str(folder / "trained"),
        "template": "qwen2_vl",
        "infer_backend": backend,
        "infer_dtype": "float32",
        "do_sample": False,
        "max_new_tokens": 4,
    }
    chat = ChatModel(arguments)
    try:
        question = [{"role": "user", "content": QUESTION}]
        return [chat.chat(question, images=[picture])[0].response_text for picture in pictures]
    finally:
        if backend == "ascend":
            chat.engine.close()


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "saves/colours").absolute()
    register()
    build_model(folder / "model")
    write_pictures(folder)
    train(folder)
    colours, pictures = zip(*held_out(), strict=True)
    answers = name_colours(folder, list(pictures))
    right = sum(colour == answer for colour, answer in zip(colours, answers, strict=True))
    for colour, answer in list(zip(colours, answers, strict=True))[: len(COLOURS)]:
        print(f"a {colour} disc: {answer}")
    print(f"right: {right} of {len(colours)}\nloss: {folder / 'trained' / 'training_loss.png'}")


if __name__ == "__main__":
    main()
