"""The rows of LLaMA-Factory's data sets, each with its place, so that a broken one is known by its line."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamafactory.data.converter import get_dataset_converter
from llamafactory.data.parser import DatasetAttr, get_dataset_list
from llamafactory.extras.constants import FILEEXT2TYPE

from ascend_adapters.errors import SettingError
from llamafactory_ascend.json_lines import Broken, values_of
from llamafactory_ascend.media import Media, Message

if TYPE_CHECKING:
    from llamafactory.hparams import DataArguments


@dataclass(frozen=True)
class Row:
    """What is asked, and what the answer should be."""

    place: str  # "data/facts.jsonl:12"
    messages: list[Message]
    label: str
    system: str | None
    tools: str | None
    media: Media


@dataclass(frozen=True)
class BrokenRow:
    """A row that cannot be asked."""

    place: str
    reason: str


def rows_of(data_args: "DataArguments") -> list[Row | BrokenRow]:
    """The rows of the data sets that `dataset` names, in order, the first max_samples of each.

    Raises SettingError for a data set that is unknown or cannot be read at all.
    """
    if not data_args.dataset:
        raise SettingError("no dataset is given: name one of dataset_info.json (dataset: my_questions).")
    try:
        datasets = get_dataset_list(data_args.dataset, data_args.dataset_dir)
    except ValueError as error:
        raise SettingError(
            f"dataset={','.join(data_args.dataset)!r}, dataset_dir={data_args.dataset_dir!r}: {error}"
        ) from error
    return [row for attributes in datasets for row in _rows(attributes, data_args)]


def _rows(attributes: DatasetAttr, data_args: "DataArguments") -> Iterator[Row | BrokenRow]:
    convert = get_dataset_converter(attributes.formatting, attributes, data_args)
    # LLaMA-Factory draws num_samples of them, others in each run; here the first ones, so that a run can go on.
    limits = [limit for limit in (attributes.num_samples, data_args.max_samples) if limit is not None]
    for place, example in islice(_examples(attributes, data_args), min(limits, default=None)):
        if isinstance(example, Broken):
            yield BrokenRow(place, example.reason)
        else:
            yield _row(place, example, convert)


def _examples(attributes: DatasetAttr, data_args: "DataArguments") -> Iterator[tuple[str, Any]]:
    """Places and what is there, before LLaMA-Factory's columns and roles are looked for."""
    if attributes.load_from == "hf_hub":
        yield from _loaded(attributes.dataset_name, attributes, path=attributes.dataset_name)
        return
    if attributes.load_from != "file":
        raise SettingError(
            f"dataset {attributes.dataset_name}: infer reads files and the Hugging Face hub, and no "
            f"{attributes.load_from}. Download it, and name it by file_name in dataset_info.json."
        )
    path = Path(data_args.dataset_dir) / attributes.dataset_name
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        kind = FILEEXT2TYPE.get(file.suffix[1:])
        if not file.is_file() or kind is None:
            raise SettingError(f"dataset file {file} is not there, or none of {', '.join(FILEEXT2TYPE)}.")
        if kind == "json":
            for line, value in values_of(file):
                yield f"{file}:{line}", value
        else:
            yield from _loaded(str(file), attributes, path=kind, data_files=[str(file)])


def _loaded(name: str, attributes: DatasetAttr, **source: Any) -> Iterator[tuple[str, Any]]:
    from datasets import load_dataset

    loaded: Iterable[Any] = load_dataset(
        name=attributes.subset, data_dir=attributes.folder, split=attributes.split, **source
    )
    for number, example in enumerate(loaded, 1):
        yield f"{name}, row {number}", example


class _Columns(dict[str, Any]):
    """A row in which a missing column is None, as it is in a table."""

    def __missing__(self, key: str) -> None:
        return None


def _row(place: str, example: Any, convert: Any) -> Row | BrokenRow:
    if not isinstance(example, dict):
        return BrokenRow(place, f"a {type(example).__name__}, and no object with columns")
    try:
        aligned = convert(_Columns(example))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        return BrokenRow(place, f"columns are missing, or not of the kind that they should be: {error!r}")
    messages = aligned["_prompt"]
    if len(messages) % 2 != 1:
        return BrokenRow(place, "the roles must alternate, the user's first and the answer last")
    if not all(isinstance(message["content"], str) for message in messages):
        return BrokenRow(place, "a message's content is no text")
    media = Media(*(list(aligned[kind] or []) for kind in ("_images", "_videos", "_audios")))
    if not messages[-1]["content"] and not media:
        return BrokenRow(place, "no question: its column is empty, or named otherwise (columns in dataset_info.json)")
    label = aligned["_response"][0]["content"] if aligned["_response"] else ""
    return Row(place, messages, str(label), aligned["_system"] or None, aligned["_tools"] or None, media)
