"""LoRA adapters: mixed in one batch, loaded and unloaded while the engine serves, and refused by name."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ascend_adapters import EmbeddedBackend, ServerBackend
from ascend_adapters.bridge import run_sync
from ascend_adapters.errors import RequestError
from tests.adapters import ATTENTION, save_adapter
from tests.e2e.lora import MODELS, Reference, make_adapters
from tests.e2e.prompts import token_ids
from tests.models import Family, of
from tests.script import run_script
from tests.tiers import names_to_test, some

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


def results_of(folder: Path, *names: str) -> dict[str, Any]:
    """What `tests.e2e.lora` says of each model, on this session's device."""
    return {result["model"]: result for result in run_script("tests.e2e.lora", str(folder), *names)}


@pytest.fixture(scope="module")
def results(request, tmp_path_factory) -> dict[str, Any]:
    """Of the tests that run, and of the one in bf16."""
    return results_of(tmp_path_factory.mktemp("lora"), *names_to_test(request, "model"), IN_BF16)


IN_BF16 = "LLaMA in bf16"


@pytest.mark.parametrize("model", some([name for name in MODELS if name != IN_BF16], "LLaMA", "Qwen3-MoE"))
def test_a_batch_of_base_and_adapters_gives_each_request_what_peft_gives(results, model):
    check(results[model])


def test_so_does_one_on_packed_weights_within_the_precision_of_bf16(results):
    result = results[IN_BF16]
    assert result["num_changed_by_adapters"] == 5
    assert result["max_logprob_difference"] < 0.25  # bf16 keeps 8 bits: about 1e-2 of logits up to 10, in two layers


@pytest.mark.npu
@pytest.mark.claim
@pytest.mark.skipif("ASCEND_SIMULATE" not in os.environ, reason="a real NPU's attention does not take fp32")
def test_the_same_on_an_npu(tmp_path):
    for result in results_of(tmp_path, "LLaMA", "Qwen2 tied").values():
        assert result["device"].startswith("npu")
        check(result)


def check(result: dict[str, Any]) -> None:
    assert result["num_requests"] == {"None": 5, "A": 5, "B": 5}
    assert result["num_changed_by_adapters"] == 5, "base, A and B all answer differently"
    assert result["num_different_from_peft"] == 0
    assert result["num_different_when_alone"] == 0
    assert result["keeps_adapter_when_others_come"]
    assert result["max_logprob_difference"] < 1e-4


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return MODELS["LLaMA"].build(tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(scope="module")
def adapters(model_folder) -> dict[str, Path]:
    return make_adapters(model_folder, MODELS["LLaMA"].config())


@pytest.fixture(scope="module")
def peft(model_folder, adapters) -> Reference:
    return Reference(model_folder, adapters)


@pytest.fixture(scope="module")
def backend(model_folder, adapters, engine_of) -> "EmbeddedBackend":
    """An engine with A, and room for one more adapter."""
    return engine_of(
        model_folder,
        dtype="float32",
        max_model_len=512,
        enable_lora=True,
        max_loras=2,
        max_lora_rank=8,
        lora_modules=[{"name": "A", "path": str(adapters["A"])}],
        kv_cache_memory_bytes=64 << 20,
    )


PROMPT = list(range(40, 90))
NUM_TOKENS = 16


def body(adapter: str | None, num_tokens: int = NUM_TOKENS) -> dict[str, Any]:
    named = {} if adapter is None else {"model": adapter}
    greedy = {"temperature": 0, "max_tokens": num_tokens, "ignore_eos": True, "return_token_ids": True}
    return {"prompt": PROMPT, **greedy, **named}


def answer_of(backend: EmbeddedBackend, adapter: str | None) -> list[int]:
    return token_ids(run_sync(backend.complete(body(adapter))))


def test_adapters_given_at_start_are_listed_and_chosen_by_name(backend, peft):
    assert run_sync(backend.info()).loras == ("A",)
    assert answer_of(backend, "A") == peft.greedy(PROMPT, "A")
    assert answer_of(backend, None) == peft.greedy(PROMPT, None)


def test_one_is_loaded_and_unloaded_while_a_request_is_answered(backend, adapters, peft):
    async def meanwhile() -> tuple[list[int], list[int]]:
        stream = backend.complete_stream(body("A", num_tokens=400))
        tokens = token_ids(await anext(stream))
        await backend.load_lora("B", str(adapters["B"]))
        assert (await backend.info()).loras == ("A", "B")
        other = token_ids(await backend.complete(body("B")))
        await backend.unload_lora("B")
        assert (await backend.info()).loras == ("A",)
        assert len(tokens) < 100, "the first request is not done yet"
        async for chunk in stream:
            for choice in chunk["choices"]:
                tokens += choice["token_ids"] or []
        return tokens, other

    tokens, other = run_sync(meanwhile())
    assert len(tokens) == 400
    assert tokens[:NUM_TOKENS] == peft.greedy(PROMPT, "A")
    assert tokens == token_ids(run_sync(backend.complete(body("A", num_tokens=400))))
    assert other == peft.greedy(PROMPT, "B")


def test_an_adapter_that_is_unloaded_while_it_answers_does_so_to_the_end(backend, adapters, peft):
    async def meanwhile() -> list[int]:
        await backend.load_lora("B", str(adapters["B"]))
        stream = backend.complete_stream(body("B", num_tokens=200))
        tokens = token_ids(await anext(stream))
        await backend.unload_lora("B")
        async for chunk in stream:
            for choice in chunk["choices"]:
                tokens += choice["token_ids"] or []
        return tokens

    assert run_sync(meanwhile())[:NUM_TOKENS] == peft.greedy(PROMPT, "B")
    with pytest.raises(RequestError, match="The model `B` does not exist"):
        answer_of(backend, "B")


def test_a_name_given_to_another_adapter_finds_nothing_of_the_former_in_the_prefix_cache(backend, adapters, peft):
    for letter in ("A", "B"):
        run_sync(backend.load_lora("name", str(adapters[letter])))
        assert answer_of(backend, "name") == peft.greedy(PROMPT, letter)
        run_sync(backend.unload_lora("name"))


def test_more_adapters_than_slots_wait_for_each_other(backend, adapters, peft):
    names = {"A": "A", "B1": "B", "B2": "B", "A2": "A"}

    async def together() -> list[list[int]]:
        for name in ("B1", "B2", "A2"):
            await backend.load_lora(name, str(adapters[names[name]]))
        answers = await asyncio.gather(*(backend.complete(body(name)) for name in [*names, None] * 3))
        for name in ("B1", "B2", "A2"):
            await backend.unload_lora(name)
        return [token_ids(answer) for answer in answers]

    expected = [peft.greedy(PROMPT, adapter) for adapter in [*names.values(), None]]
    assert run_sync(together()) == expected * 3


@pytest.fixture(scope="module")
def unfit(model_folder, adapters, tmp_path_factory) -> dict[str, Path]:
    """Adapters that this engine cannot serve."""
    folder = tmp_path_factory.mktemp("unfit")
    wider = Family("wider", of("LlamaConfig", hidden_size=320, head_dim=80)).build(folder / "wider")
    narrower = Family("narrower", of("LlamaConfig", hidden_size=128, head_dim=32)).build(folder / "narrower")
    deeper = Family("deeper", of("LlamaConfig", num_hidden_layers=3)).build(folder / "deeper")
    attention = {"target_modules": ATTENTION}
    found = {
        "rank 16": save_adapter(model_folder, folder / "rank", 0, r=16, **attention),
        "DoRA": save_adapter(model_folder, folder / "dora", 0, use_dora=True, **attention),
        "of a wider model": save_adapter(wider, folder / "of-wider", 0, **attention),
        "of a narrower model": save_adapter(narrower, folder / "of-narrower", 0, **attention),
        "of a deeper model": save_adapter(deeper, folder / "of-deeper", 0, **attention),
        "missing": folder / "nowhere",
        "no adapter": model_folder,
        "pickled": shutil.copytree(adapters["A"], folder / "pickled"),
        "cut off": shutil.copytree(adapters["A"], folder / "cut-off"),
    }
    (found["pickled"] / "adapter_model.safetensors").rename(found["pickled"] / "adapter_model.bin")
    weights = found["cut off"] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return found


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("rank 16", "its rank is 16, and this engine's limit is max_lora_rank=8: start the engine with .*=16"),
        ("DoRA", "it uses DoRA, which is not served: merge it into the model's weights"),
        ("of a wider model", r"q_proj is 256 x 256 here, and 320 x 320 in the adapter.*made for another model"),
        ("of a narrower model", r"q_proj is 256 x 256 here, and 128 x 128 in the adapter.*made for another model"),
        ("of a deeper model", r"no layer model.layers.2.self_attn.k_proj .*made for another model"),
        ("missing", "there is no folder '.*nowhere'"),
        ("no adapter", "it holds no adapter_config.json"),
        ("pickled", "holds no adapter_model.safetensors, and nothing else is read"),
        ("cut off", r"adapter_model.safetensors' cannot be read \(.*: copy it again"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name_and_the_engine_serves_on(backend, unfit, peft, which, message):
    with pytest.raises(RequestError, match=f"^LoRA adapter 'unfit' cannot be served: .*{message}"):
        run_sync(backend.load_lora("unfit", str(unfit[which])))
    assert run_sync(backend.info()).loras == ("A",)
    with pytest.raises(RequestError, match="The model `unfit` does not exist"):
        answer_of(backend, "unfit")
    assert answer_of(backend, "A") == peft.greedy(PROMPT, "A")


def test_a_name_that_is_taken_and_one_that_is_not_loaded(backend, adapters):
    with pytest.raises(RequestError, match="'A' has already been loaded"):
        run_sync(backend.load_lora("A", str(adapters["B"])))
    with pytest.raises(RequestError, match="'nobody' cannot be found"):
        run_sync(backend.unload_lora("nobody"))


def test_a_path_is_relative_to_this_process_and_not_to_the_engines(backend, adapters, peft, monkeypatch):
    monkeypatch.chdir(adapters["B"].parent)
    run_sync(backend.load_lora("B", adapters["B"].name))
    assert answer_of(backend, "B") == peft.greedy(PROMPT, "B")
    run_sync(backend.unload_lora("B"))


@pytest.mark.parametrize("where", ["embedded", "server"])
def test_an_engine_that_was_not_asked_for_lora_says_how_to(where, request, adapters):
    if where == "embedded":
        backend = request.getfixturevalue("engine")
    else:
        server = request.getfixturevalue("server")
        backend = ServerBackend(server.url, api_key=server.api_key)
    with pytest.raises(RequestError, match=r"takes no LoRA adapters: set enable_lora=True.*--enable-lora"):
        run_sync(backend.load_lora("A", str(adapters["A"])))
