"""`llamafactory-ascend infer`: answers to a data set, of which none is lost."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ascend_adapters.errors import SettingError
from llamafactory_ascend.similarity import measure
from tests.integrations.llamafactory.test_engine import chat_model

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("_event_loop")]

SETTINGS = {"max_model_len": 512, "dtype": "float32"}


@pytest.fixture
def config(tmp_path, chat_model_folder):
    """Arguments for a data set of `questions`, a list of rows or lines."""

    def write(questions, **arguments):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in questions]
        (tmp_path / "questions.jsonl").write_text("\n".join(lines))
        (tmp_path / "dataset_info.json").write_text(json.dumps({"questions": {"file_name": "questions.jsonl"}}))
        return {
            "model_name_or_path": str(chat_model_folder),
            "template": "smollm2",
            "infer_backend": "ascend",
            "dataset": "questions",
            "dataset_dir": str(tmp_path),
            "do_sample": False,
            "max_new_tokens": 16,
            "vllm_config": json.dumps(SETTINGS),
            **arguments,
        }

    return write


@pytest.fixture(scope="module")
def model(chat_model_folder):
    """Keeps the engine that these tests ask, and answers one question at a time."""
    chat = chat_model(chat_model_folder, "ascend", vllm_config=json.dumps(SETTINGS), max_new_tokens=16)
    yield chat
    chat.engine.close()


def questions(count):
    return [{"instruction": f"What is {i} + {i}?", "input": "", "output": f"{2 * i}"} for i in range(count)]


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.engine
def test_answers_are_those_of_chat_in_the_order_of_the_rows(config, model, tmp_path):
    from llamafactory_ascend.infer import infer

    rows = questions(12)
    assert infer(config(rows), tmp_path / "out.jsonl", tmp_path / "means.json") == []
    records = lines_of(tmp_path / "out.jsonl")
    assert [record["label"] for record in records] == [row["output"] for row in rows]
    for row, record in list(zip(rows, records, strict=True))[::5]:
        (response,) = model.chat([{"role": "user", "content": row["instruction"]}])
        assert record["predict"] == response.response_text
        assert record["prompt"].endswith(f"user\n{row['instruction']}\nassistant\n")
    means = json.loads((tmp_path / "means.json").read_text())
    assert sorted(means) == ["predict_bleu-4", "predict_rouge-1", "predict_rouge-2", "predict_rouge-l"]
    assert not (tmp_path / "out.jsonl.part").exists()


@pytest.mark.engine
def test_rows_that_cannot_be_answered_are_told_and_the_rest_is_done(config, model, tmp_path):
    from llamafactory_ascend.infer import infer

    rows = [*questions(2), "{broken", {"instruction": "word " * 900}, *questions(4)[2:]]
    file = tmp_path / "out.jsonl"
    no_json, too_long = infer(config(rows), file)
    assert no_json.place.endswith("questions.jsonl:3")
    assert too_long.place.endswith("questions.jsonl:4")
    assert "512" in too_long.reason
    answers = lines_of(file)
    assert [record["label"] for record in answers] == ["0", "2", "4", "6"]
    # Once they are mended, only they are answered.
    mark_answers(tmp_path / "out.jsonl.part")
    rows[2:4] = questions(6)[4:]
    assert infer(config(rows), file) == []
    predictions = [record["predict"] for record in lines_of(file)]
    assert [prediction == "kept" for prediction in predictions] == [True, True, False, False, True, True]


def mark_answers(part):
    """So that an answer which was there is told from one to the same question that was asked again."""
    settings, *answers, cut = part.read_text().split("\n")
    marked = [json.dumps({**json.loads(answer), "predict": "kept"}) for answer in answers]
    part.write_text("\n".join([settings, *marked, cut]))


@pytest.mark.engine
@pytest.mark.claim
def test_a_run_that_was_killed_goes_on(config, model, tmp_path):
    from llamafactory_ascend.infer import infer

    rows = questions(120)
    arguments = config(rows, vllm_config=json.dumps({**SETTINGS, "max_num_seqs": 8}))
    (tmp_path / "infer.yaml").write_text(json.dumps({**arguments, "save_name": str(tmp_path / "out.jsonl")}))
    command = [sys.executable, "-m", "llamafactory_ascend", "infer", str(tmp_path / "infer.yaml")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    part, deadline = tmp_path / "out.jsonl.part", time.monotonic() + 150
    while not (part.exists() and part.read_bytes().count(b"\n") > 20):
        assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = part.read_bytes().count(b"\n") - 1
    assert 20 <= there < 120
    with part.open("a") as file:
        file.write('{"row": "cut')  # as a line that was being written
    mark_answers(part)
    assert infer({**arguments, "vllm_config": json.dumps(SETTINGS)}, tmp_path / "out.jsonl") == []
    records = lines_of(tmp_path / "out.jsonl")
    assert [record["label"] for record in records] == [row["output"] for row in rows]
    assert sum(record["predict"] == "kept" for record in records) == there


def test_answers_of_other_settings_are_not_mixed_in(config, tmp_path):
    from llamafactory_ascend.infer import infer

    part = tmp_path / "out.jsonl.part"
    part.write_text('{"settings": {"temperature": 0.3}}\n')
    with pytest.raises(SettingError, match=r"out\.jsonl\.part has .*temperature=0\.3, here 0\.95.*another save_name"):
        infer(config(questions(1)), tmp_path / "out.jsonl")
    assert part.read_text() == '{"settings": {"temperature": 0.3}}\n'


def test_arguments_come_from_a_file_or_the_command_line():
    from llamafactory_ascend.infer import split_arguments

    from_file, own = split_arguments({"template": "qwen", "save_name": "a.jsonl"})
    assert (from_file, own.save_name) == ({"template": "qwen", "infer_backend": "ascend"}, "a.jsonl")
    from_line, own = split_arguments(["--template", "qwen", "--save_name", "a.jsonl"])
    assert (from_line, own.save_name) == (["--template", "qwen", "--infer_backend", "ascend"], "a.jsonl")
    with pytest.raises(SettingError, match="infer_backend='vllm': infer is of the engine ascend"):
        split_arguments({"infer_backend": "vllm"})


def test_measures_are_of_llamafactory(chat_model_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat_model_folder)
    same, other = ({"predict": "Paris is a large city.", "label": label} for label in ("Paris is a large city.", "No."))
    assert measure([same], tokenizer)["rouge-1"] == pytest.approx(100, abs=0.01)
    assert measure([same], tokenizer)["bleu-4"] == pytest.approx(100)
    halves = measure([same, other], tokenizer)
    assert halves["rouge-l"] == pytest.approx((100 + measure([other], tokenizer)["rouge-l"]) / 2, abs=0.01)


def test_means_that_cannot_be_measured_are_refused_before_anything_is_answered(config, tmp_path, monkeypatch):
    from llamafactory_ascend.infer import infer

    monkeypatch.setattr("llamafactory_ascend.similarity.NEEDED", {"no_such_module": "no-such-package"})
    with pytest.raises(SettingError, match=r"means\.json' needs no-such-package: pip install no-such-package"):
        infer(config(questions(1)), tmp_path / "out.jsonl", tmp_path / "means.json")
