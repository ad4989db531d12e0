"""Teaches SmolLM2 forty facts about a company that does not exist, then asks about them, before and after.

    python examples/llamafactory_finetune_then_infer/run.py [--huggingface] [FOLDER]

FOLDER gets the LoRA adapter and the plot of the loss. The questions are worded otherwise than those of the training.
With --huggingface, LLaMA-Factory's own engine is asked, too, one question after the other.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from llamafactory_ascend import register

HERE = Path(__file__).parent
MODEL = "smollm2-135m-instruct"
SHOWN = 5  # questions and answers


def train(model: Path, output: Path) -> None:
    """`llamafactory-ascend train`, which is LLaMA-Factory's own."""
    arguments = [f"model_name_or_path={model}", f"output_dir={output}", "overwrite_output_dir=true"]
    command = [sys.executable, "-m", "llamafactory_ascend", "train", "train.yaml", *arguments]
    subprocess.run(command, cwd=HERE, check=True)


def ask(model: Path, output: Path, questions: list[str]) -> tuple[list[str], list[str]]:
    """The answers of the model as it was, and with the adapter: from one engine, all at once."""
    from llamafactory.chat import ChatModel

    chat = ChatModel(_arguments(model, output))

    async def answer(question: str, **adapter: str) -> str:
        (response,) = await chat.engine.chat([{"role": "user", "content": question}], **adapter)
        return str(response.response_text)

    async def answer_all() -> list[str]:
        base, tuned = ([answer(question, **which) for question in questions] for which in ({"adapter": ""}, {}))
        return await asyncio.gather(*base, *tuned)

    try:
        answers = asyncio.run(answer_all())
    finally:
        chat.engine.close()
    return answers[: len(questions)], answers[len(questions) :]


def ask_huggingface(model: Path, output: Path, questions: list[str]) -> list[str]:
    """The answers with the adapter, from LLaMA-Factory's huggingface engine."""
    from llamafactory.chat import ChatModel

    chat = ChatModel({**_arguments(model, output), "infer_backend": "huggingface"})
    return [chat.chat([{"role": "user", "content": question}])[0].response_text for question in questions]


def _arguments(model: Path, output: Path) -> dict[str, Any]:
    given: dict[str, Any] = yaml.safe_load((HERE / "chat.yaml").read_text())
    return {**given, "model_name_or_path": str(model), "adapter_name_or_path": str(output)}


def right(answers: list[str], labels: list[str]) -> str:
    """How many answers have in them what they should."""
    count = sum(label.casefold() in answer.casefold() for answer, label in zip(answers, labels, strict=True))
    return f"{count} of {len(labels)} ({count / len(labels):.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("saves/tallowbrook"))
    parser.add_argument("--huggingface", action="store_true")
    given = parser.parse_args()
    output = given.folder.absolute()
    register()
    model = pull(CATALOGUE[MODEL], Progress(MODEL))
    train(model, output)
    held_out = [json.loads(line) for line in (HERE / "data" / "held_out.jsonl").read_text().splitlines()]
    questions, labels = ([row[column] for row in held_out] for column in ("instruction", "output"))
    base, tuned = ask(model, output, questions)
    for question, before, after in list(zip(questions, base, tuned, strict=True))[:SHOWN]:
        print(f"\n{question}\n  before: {' '.join(before.split())}\n  after:  {after}")
    print(f"\nright before: {right(base, labels)}\nright after:  {right(tuned, labels)}")
    if given.huggingface:
        reference = ask_huggingface(model, output, questions)
        same = sum(ours == theirs for ours, theirs in zip(tuned, reference, strict=True))
        print(f"right after, on the huggingface engine: {right(reference, labels)}; the same text: {same}")
    print(f"loss: {output / 'training_loss.png'}")


if __name__ == "__main__":
    main()
