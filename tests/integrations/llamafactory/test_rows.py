"""Rows of LLaMA-Factory's data sets: what is asked, and what is broken, with its line."""

import json

import pytest

from ascend_adapters.errors import SettingError

OPENAI = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}


@pytest.fixture
def rows(tmp_path, chat_model_folder):
    """The rows of a file, which dataset_info.json describes."""
    from llamafactory.hparams import get_infer_args

    from llamafactory_ascend.rows import rows_of

    def read(name, text, description=None, **arguments):
        (tmp_path / name).write_text(text)
        described = {"questions": {"file_name": name, **(description or {})}}
        (tmp_path / "dataset_info.json").write_text(json.dumps(described))
        given = {"model_name_or_path": str(chat_model_folder), "template": "smollm2", "infer_backend": "ascend"}
        _, data_args, *_ = get_infer_args({**given, "dataset": "questions", "dataset_dir": str(tmp_path), **arguments})
        return rows_of(data_args)

    return read


def broken(rows):
    from llamafactory_ascend.rows import BrokenRow

    return [(row.place.rsplit("/", 1)[-1], row.reason) for row in rows if isinstance(row, BrokenRow)]


def test_a_list_and_lines_are_read_alike(rows):
    questions = [{"instruction": f"What is {i}?", "input": "Think.", "output": f"It is {i}."} for i in range(3)]
    as_list = rows("list.json", json.dumps(questions, indent=1))
    as_lines = rows("lines.jsonl", "\n".join(map(json.dumps, questions)))
    assert [(row.messages, row.label) for row in as_list] == [(row.messages, row.label) for row in as_lines]
    assert as_lines[1].messages == [{"role": "user", "content": "What is 1?\nThink."}]
    assert as_lines[1].label == "It is 1."
    assert [row.place.rsplit("/", 1)[-1] for row in as_list] == ["list.json:2", "list.json:7", "list.json:12"]
    assert [row.place.rsplit("/", 1)[-1] for row in as_lines] == ["lines.jsonl:1", "lines.jsonl:2", "lines.jsonl:3"]


def test_a_broken_line_is_told_and_the_others_are_there(rows):
    from llamafactory_ascend.rows import Row

    lines = [
        '{"instruction": "What is 1?", "input": "", "output": "1"}',
        '{"instruction": "What is 2?", "input"',
        "",
        '{"instruction": 3, "input": "", "output": "3"}',
        '{"question": "What is 4?"}',
        '"What is 5?"',
        '{"instruction": "What is 6?"}',
    ]
    read = rows("lines.jsonl", "\n".join(lines))
    assert [row.messages[0]["content"] for row in read if isinstance(row, Row)] == ["What is 1?", "What is 6?"]
    (second, no_json), (fourth, no_text), (fifth, no_question), (sixth, no_object) = broken(read)
    assert [second, fourth, fifth, sixth] == [f"lines.jsonl:{line}" for line in (2, 4, 5, 6)]
    assert no_json.startswith("no JSON: Expecting ':' delimiter (column")
    assert "not of the kind that they should be: TypeError" in no_text
    assert "no question: its column is empty, or named otherwise" in no_question
    assert no_object == "a str, and no object with columns"


def test_a_list_that_is_no_json_is_refused_with_its_line(rows):
    with pytest.raises(SettingError, match=r"list\.json:3: no JSON: .*Mend it there"):
        rows("list.json", '[\n{"instruction": "1"},\n{"instruction": }\n]')


def test_conversations_have_their_roles_in_turn(rows):
    from llamafactory_ascend.rows import BrokenRow

    asked = {"role": "user", "content": "What is 1?"}
    answered = {"role": "assistant", "content": "It is 1."}
    system = {"role": "system", "content": "Be brief."}
    tags = {**OPENAI["tags"], "system_tag": "system"}
    conversations = [[system, asked, answered], [asked, asked, answered], [asked], [asked, answered, asked, answered]]
    lines = "\n".join(json.dumps({"messages": messages}) for messages in conversations)
    first, second, third, fourth = rows("chats.jsonl", lines, {**OPENAI, "tags": tags})
    assert (first.system, first.messages, first.label) == ("Be brief.", [asked], "It is 1.")
    assert isinstance(second, BrokenRow)
    assert isinstance(third, BrokenRow)
    assert "the roles must alternate" in second.reason
    assert (fourth.messages, fourth.label) == ([asked, answered, asked], "It is 1.")


def test_pictures_are_looked_for_beside_the_data(rows, tmp_path):
    (tmp_path / "1.png").touch()
    row = json.dumps({"instruction": "<image>What is this?", "input": "", "output": "1", "images": ["1.png"]})
    columns = {"prompt": "instruction", "query": "input", "response": "output", "images": "images"}
    (read,) = rows("seen.jsonl", row, {"columns": columns})
    assert read.media.images == [str(tmp_path / "1.png")]


# datasets 4.0 leaves the file open.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*csv:pytest.PytestUnraisableExceptionWarning")
def test_other_files_have_numbers_of_rows(rows):
    read = rows("questions.csv", 'instruction,input,output\n"What is 1?",,1\n,,2\n')
    assert read[0].messages == [{"role": "user", "content": "What is 1?"}]
    assert broken(read) == [("questions.csv, row 2", read[1].reason)]


def test_the_first_samples_are_taken(rows):
    lines = "\n".join(json.dumps({"instruction": str(i)}) for i in range(9))
    assert [row.messages[0]["content"] for row in rows("lines.jsonl", lines, max_samples=2)] == ["0", "1"]
    assert len(rows("lines.jsonl", lines, {"num_samples": 3})) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "answers"}, "Undefined dataset answers in dataset_info.json"),
        ({"dataset_dir": "no/such"}, "dataset_dir='no/such': Cannot open no/such/dataset_info.json"),
        ({"dataset": None}, "no dataset is given: name one of dataset_info.json"),
    ],
)
def test_an_unknown_data_set_is_refused(rows, arguments, message):
    with pytest.raises(SettingError, match=message):
        rows("lines.jsonl", "", **arguments)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"file_name": "gone.jsonl"}, r"gone\.jsonl is not there, or none of arrow, csv, json"),
        ({"script_url": "script"}, "infer reads files and the Hugging Face hub, and no script. Download it"),
    ],
)
def test_a_data_set_that_cannot_be_read_is_refused(rows, description, message):
    with pytest.raises(SettingError, match=message):
        rows("lines.jsonl", "", description)
