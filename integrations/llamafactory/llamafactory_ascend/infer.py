"""`llamafactory-ascend infer`: the answers to a data set, through one continuous batch."""

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from llamafactory.hparams import get_infer_args
from llamafactory.hparams.parser import read_args
from tqdm import tqdm

from ascend_adapters.errors import RequestError, SettingError
from llamafactory_ascend import similarity
from llamafactory_ascend.engine import AscendEngine
from llamafactory_ascend.predictions import Predictions
from llamafactory_ascend.rows import BrokenRow, Row, rows_of

USAGE = """\
llamafactory-ascend infer CONFIG.yaml [NAME=VALUE ...]
llamafactory-ascend infer --model_name_or_path ... --template ... --dataset ...

The answers to a data set of dataset_info.json, as JSON lines of prompt, predict and label. The arguments are those of
chat, those of data sets (dataset, dataset_dir, max_samples), and

  save_name         the file of answers [generated_predictions.jsonl]; run again, it goes on where it was
  matrix_save_name  a file for the means of BLEU-4 and ROUGE, which are told in any case if nltk, jieba and
                    rouge-chinese are installed

A row that cannot be answered is told with its line; the others are answered, and the exit status is 1.
"""
SAVE_NAME = "generated_predictions.jsonl"
# As many as vLLM computes at once unless told otherwise (max_num_seqs), and some that wait.
IN_FLIGHT = 300


def main() -> None:
    """The command; sys.argv without its name. Raises AscendError."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(USAGE)
        return
    arguments, own = split_arguments(read_args())
    save_name = Path(own.save_name)
    failed = infer(arguments, save_name, Path(own.matrix_save_name) if own.matrix_save_name else None)
    if failed:
        told = "".join(f"\n  {row.place}: {row.reason}" for row in failed)
        sys.exit(f"Without an answer: {len(failed)}{told}\nMend them and run this again: the other answers are kept.")


def split_arguments(given: dict[str, Any] | list[str]) -> tuple[dict[str, Any] | list[str], Namespace]:
    """LLaMA-Factory's arguments, with our engine chosen, and those of this command.

    Raises SettingError if another engine is asked for.
    """
    parser = ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--save_name", default=SAVE_NAME)
    parser.add_argument("--matrix_save_name")
    parser.add_argument("--infer_backend", default="ascend")
    arguments: dict[str, Any] | list[str]
    if isinstance(given, dict):
        names = [action.dest for action in parser._actions]
        own = parser.parse_args([f"--{name}={given[name]}" for name in names if given.get(name) is not None])
        arguments = {**{name: value for name, value in given.items() if name not in names}, "infer_backend": "ascend"}
    else:
        own, rest = parser.parse_known_args(given)
        arguments = [*rest, "--infer_backend", "ascend"]
    if own.infer_backend != "ascend":
        raise SettingError(f"infer_backend={own.infer_backend!r}: infer is of the engine ascend. Leave it out.")
    return arguments, own


def infer(
    arguments: dict[str, Any] | list[str], save_name: Path, matrix_save_name: Path | None = None
) -> list[BrokenRow]:
    """Answers a data set into the file `save_name`, and returns the rows that have no answer.

    Raises SettingError, ModelError, or what ends the engine; the answers until then are kept for the next run.
    """
    parsed = get_infer_args(arguments)
    model_args, data_args, _, generating_args = parsed
    similarity.check(matrix_save_name)
    rows = rows_of(data_args)
    whole, broken = [row for row in rows if isinstance(row, Row)], [row for row in rows if isinstance(row, BrokenRow)]
    engine = AscendEngine(*parsed)
    settings = {
        "model": model_args.model_name_or_path,
        "adapters": engine.adapter_names(),
        **{name: getattr(data_args, name) for name in ("template", "default_system", "enable_thinking", "tool_format")},
        **generating_args.to_dict(),
    }
    try:
        with Predictions(save_name, settings) as predictions:
            if missing := predictions.missing(whole):
                engine.start()  # before the progress begins
            with tqdm(total=len(whole), initial=len(whole) - len(missing), unit="row") as progress:
                broken += asyncio.run(_answer(engine, missing, predictions, progress.update))
            records = predictions.finish(whole, keep_part=bool(broken))
    finally:
        engine.close()
    print(f"{len(records)} answers in {save_name}")
    similarity.tell(records, engine.tokenizer, matrix_save_name)
    return broken


async def _answer(
    engine: AscendEngine, rows: Iterable[Row], predictions: Predictions, answered: Callable[[], Any]
) -> list[BrokenRow]:
    """The rows that the engine refused. Raises the first error that is not of one row alone."""
    left, refused = iter(rows), list[BrokenRow]()
    callers = [
        asyncio.create_task(_answer_each(engine, left, predictions, refused, answered)) for _ in range(IN_FLIGHT)
    ]
    try:
        await asyncio.gather(*callers)
    finally:
        for caller in callers:
            caller.cancel()
    return refused


async def _answer_each(
    engine: AscendEngine,
    left: Iterator[Row],
    predictions: Predictions,
    refused: list[BrokenRow],
    answered: Callable[[], Any],
) -> None:
    for row in left:
        try:
            media = row.media
            prompt = engine.prompt(row.messages, row.system, row.tools, media.images, media.videos, media.audios)
            responses = await engine.answer(prompt)
        except RequestError as error:
            refused.append(BrokenRow(row.place, str(error)))
        else:
            text = engine.tokenizer.decode(prompt.token_ids, skip_special_tokens=True)
            predictions.add(row, text, responses[0].response_text)
        answered()
