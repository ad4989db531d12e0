"""GGUF files as models: converted once, into what Hugging Face would have; or refused by name."""

import filecmp
import os

import pytest
import torch

from ascend_adapters.errors import ModelError
from ascend_adapters.gguf import converted
from ascend_adapters.models import CATALOGUE, locate, original, prepare
from ascend_adapters.prepared import MANIFEST
from ascend_adapters.progress import Progress
from tests.gguf_files import MARKS, TEXT, vocabulary_and_merges, write
from tests.models import FAMILIES, SEED, randomize


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("ASCEND_ADAPTERS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    return write(tiny("Qwen2"), tmp_path_factory.mktemp("gguf") / "model.gguf")


def tiny(family, **values):
    # Here and below not at the top: importing it takes seconds.
    from transformers import AutoModelForCausalLM

    torch.manual_seed(SEED)
    config = FAMILIES[family].config()
    config.update(values)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomize(model)
    return model


def convert(path):
    return converted(path, Progress("model", quiet=True))


@pytest.mark.slow  # 100 s
def test_the_catalogues_gguf_gives_the_catalogues_folder(tmp_path, chat_model_folder):
    model = CATALOGUE["smollm2-135m-instruct"]
    file = original(model, tmp_path)
    folder = prepare(locate(str(file)), Progress("model", quiet=True))
    names = sorted(set(os.listdir(chat_model_folder)) - {MANIFEST})
    assert sorted(set(os.listdir(folder)) - {MANIFEST}) == names
    assert filecmp.cmpfiles(folder, chat_model_folder, names, shallow=False) == (names, [], [])


def assert_same_logits(folder, model):
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(40).unsqueeze(0)
    for parameter in model.parameters():
        parameter.data = parameter.bfloat16().float()
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)


def test_the_weights_are_the_models_in_bf16(qwen2):
    assert_same_logits(convert(qwen2), tiny("Qwen2"))


def test_qwen3s_heads_have_128_elements(tmp_path):
    model = tiny("Qwen3", head_dim=128)
    assert_same_logits(convert(write(model, tmp_path / "model.gguf", "qwen3", qwen3__attention__key_length=128)), model)


def test_qwens_tokenizer_is_transformers_own(qwen2):
    from transformers import AutoTokenizer, Qwen2Tokenizer

    tokenizer = AutoTokenizer.from_pretrained(convert(qwen2))
    vocabulary, merges = vocabulary_and_merges()
    marks = {mark: len(vocabulary) + i for i, mark in enumerate(MARKS)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    theirs = Qwen2Tokenizer(vocabulary | marks, pairs, extra_special_tokens=list(MARKS))
    for text in (*TEXT, "<|im_start|>user\nhi 987<|im_end|>", "e\u0301"):
        assert tokenizer(text).input_ids == theirs(text).input_ids
        assert tokenizer.decode(tokenizer(text).input_ids) == theirs.decode(theirs(text).input_ids)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_a_file_is_converted_once_and_read_again_when_its_content_changes(qwen2, tmp_path, capsys):
    folder = converted(qwen2, Progress("model"))
    capsys.readouterr()
    assert converted(qwen2, Progress("model")) == folder
    assert capsys.readouterr().err == ""
    changed = write(tiny("Qwen2"), tmp_path / "model.gguf", split__count=2)
    with pytest.raises(ModelError):
        convert(changed)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokenizer__ggml__model": "llama"}, "its tokenizer is 'llama', and only byte-level BPE is built here"),
        ({"tokenizer__ggml__pre": "tekken"}, "its pre-tokenizer is 'tekken', and smollm and qwen2 are known here"),
        ({"tokenizer__ggml__add_bos_token": True}, "its tokenizer begins every text with a token"),
        ({"qwen2__rope__scaling__type": "yarn"}, "its rotary embedding is scaled, which would be lost"),
        ({"qwen2__attention__key_length": 32}, "its heads have 32 elements, which would be lost"),
        ({"split__count": 2}, "it is one of 2 parts: join them"),
    ],
)
def test_what_would_be_read_wrongly_is_refused_with_the_remedy(tmp_path, cache, fields, message):
    before = set(cache.rglob("*"))
    path = write(tiny("Qwen2"), tmp_path / "model.gguf", **fields)
    with pytest.raises(ModelError, match=f"model.gguf could not be converted: {message}.*Hugging Face folder instead"):
        convert(path)
    assert {path for path in cache.rglob("*") if path.suffix != ".lock"} <= before


def test_an_architecture_that_is_not_converted_is_refused(tmp_path):
    path = write(tiny("Phi-3"), tmp_path / "model.gguf", "phi3")
    with pytest.raises(ModelError, match="its architecture is 'phi3', and llama, qwen2, qwen3 are known"):
        convert(path)


def test_a_file_that_only_begins_as_one_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(ModelError, match=r"model\.gguf could not be converted: "):
        convert(tmp_path / "model.gguf")
