"""The whole engine on an NPU, real or simulated: the tokens of Hugging Face, as on the CPU operator set.

In fp32 where the NPU is simulated: fewer bits make greedy tokens a matter of chance.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from tests.conftest import CHAT_MODEL
from tests.e2e.prompts import complete_together, greedy_body, metric, prompts_of, token_ids
from tests.script import run_script

pytestmark = [pytest.mark.npu, pytest.mark.engine, pytest.mark.timeout(900)]

NUM_TOKENS = 32
SIMULATED = os.environ.get("ASCEND_SIMULATE")
# 1,280 slots: one long request, or a few short ones. Steps of 256 tokens.
TIGHT = {
    "max_model_len": 1024,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 256,
    "block_size": 64,
    "num_gpu_blocks_override": 20,
    "kv_cache_memory_bytes": 200_000_000,
}
# Largest difference of a log probability. fp16 keeps 11 bits: about 1e-3 of logits up to 30, summed over 30 layers.
FP16_TOLERANCE = 0.1


@contextmanager
def engine_on(environment: dict[str, str | None], **settings: Any) -> Iterator[EmbeddedBackend]:
    """An engine of its own, started with these environment variables (None: unset)."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
        backend = EmbeddedBackend(CHAT_MODEL, **settings)
        run_sync(backend.info())
    try:
        yield backend
    finally:
        run_sync(backend.close())


def chip(name: str) -> dict[str, str | None]:
    if SIMULATED is None:
        pytest.skip(f"a simulated {name} is asked for, and there is a real NPU here")
    return {"ASCEND_SIMULATE": name}


@pytest.fixture(scope="module")
def prompts(reference) -> list[list[int]]:
    """16 prompts of 5 to 305 tokens."""
    return prompts_of([5 + 20 * i for i in range(16)], reference)


def prompt_logprobs(backend: EmbeddedBackend, tokens: list[int]) -> list[float]:
    """The log probability of every token but the first, given those before it."""
    answer = run_sync(backend.complete({"prompt": tokens, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}))
    given = answer["choices"][0]["prompt_logprobs"][1:]
    return [entry[str(token)]["logprob"] for entry, token in zip(given, tokens[1:], strict=True)]


@pytest.fixture(scope="module")
def wanted(reference, prompts) -> tuple[list[list[int]], list[list[float]]]:
    """What Hugging Face answers: tokens, and log probabilities of the prompts with them."""
    tokens = reference.greedy_of_each(prompts, NUM_TOKENS)
    texts = [prompt + answer for prompt, answer in zip(prompts, tokens, strict=True)]
    return tokens, reference.logprobs_of_each(texts)


@pytest.fixture(scope="module")
def npu_engine() -> Iterator[EmbeddedBackend]:
    """The NPU of this session: 910B3 if it is simulated."""
    with engine_on({}, dtype="float32" if SIMULATED else "float16", **TIGHT) as engine:
        yield engine


def test_it_says_that_it_runs_on_an_npu_and_whether_that_is_simulated(npu_engine):
    device = run_sync(npu_engine.info()).device
    assert device.startswith(f"npu (simulated {SIMULATED}), operator set npu" if SIMULATED else "npu (Ascend")


@pytest.mark.skipif(SIMULATED is None, reason="tokens are compared in fp32, which a real NPU's attention does not take")
def test_16_prompts_give_the_tokens_of_hugging_face_with_chunked_prefill_and_preemption(npu_engine, prompts, wanted):
    assert complete_together(npu_engine, prompts, NUM_TOKENS) == wanted[0]
    assert max(map(len, prompts)) > TIGHT["max_num_batched_tokens"], "some prompts are computed in chunks"
    assert metric(npu_engine, "vllm:num_preemptions_total") > 0


def test_a_shared_prefix_is_computed_once(npu_engine, prompts):
    ending = prompts[1][:9]
    for _ in range(2):
        answer = run_sync(npu_engine.complete(greedy_body(prompts[-1] + ending, 4, "shared")))
    # Whole blocks of 64 of the 314 tokens.
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 256
    assert token_ids(answer) == token_ids(run_sync(npu_engine.complete(greedy_body(prompts[-1] + ending, 4))))


def test_sampling_with_top_k_and_top_p_is_repeatable(npu_engine, prompts):
    body = {
        "prompt": prompts[0],
        "max_tokens": 8,
        "temperature": 1.0,
        "top_p": 0.9,
        "seed": 7,
        "return_token_ids": True,
    }
    first, again = (token_ids(run_sync(npu_engine.complete({**body, "top_k": k}))) for k in (20, 20))
    assert first == again
    assert len(first) == 8


def test_log_probabilities_are_those_of_hugging_face(npu_engine, prompts, wanted):
    tokens, expected = wanted
    tolerance = 1e-3 if SIMULATED else FP16_TOLERANCE
    for prompt, answer, logprobs in list(zip(prompts, tokens, expected, strict=True))[::5]:
        assert prompt_logprobs(npu_engine, prompt + answer) == pytest.approx(logprobs, abs=tolerance)


@pytest.mark.claim
@pytest.mark.skipif(SIMULATED is None, reason="graphs are not verified on hardware; tokens are compared in fp32")
def test_captured_decode_steps_give_the_same_tokens(prompts, wanted):
    """Batches of 1 to 4 requests, some in a captured size that is larger than they are."""
    settings = {**TIGHT, "max_num_seqs": 4, "additional_config": {"npu_graphs": True}}
    with engine_on({}, dtype="float32", **settings) as engine:
        answers = complete_together(engine, prompts[:7], NUM_TOKENS)
        (run,) = engine.engine._runs.values()
        log = run.log
    assert answers == wanted[0][:7]
    assert "Graph capturing finished" in log
    assert "capture failed" not in log


@pytest.mark.skipif(SIMULATED is None, reason="the calls of CANN are counted where it is simulated")
def test_what_the_launcher_forks_inherits_no_device_only_answers_to_two_questions():
    (found,) = run_script("tests.e2e.touched")
    assert found["calls"] == ["aclrtGetDeviceCount", "aclrtGetSocName"]


def test_a_decoder_layer_takes_ten_launches():
    if SIMULATED != "910B3":
        pytest.skip("launches are counted on the simulated 910B3")
    done = subprocess.run([sys.executable, "-m", "bench.launches"], capture_output=True, text=True)
    assert "one decoder layer of one decode step (10 launches)" in done.stdout, done.stdout + done.stderr[-2000:]
    assert "npu (simulated 910B3): platform npu, weights and KV cache on npu:0" in done.stdout


@pytest.mark.claim
def test_an_a3_gives_the_same_tokens(prompts, wanted):
    settings = {**TIGHT, "max_num_seqs": 15}  # equal settings would share the 910B3's engine
    with engine_on(chip("910_9391"), dtype="float32", **settings) as engine:
        assert run_sync(engine.info()).device.startswith("npu (simulated 910_9391), operator set npu")
        assert complete_together(engine, prompts, NUM_TOKENS) == wanted[0]


@pytest.mark.claim
def test_the_kv_cache_takes_what_the_model_leaves_and_nothing_of_a_killed_engine_is_left():
    settings = {"dtype": "float16", "max_model_len": 256, "max_num_seqs": 4, "max_num_batched_tokens": 256}
    with engine_on({"ASCEND_SIMULATE_MEMORY_GB": "2"}, **settings) as engine:
        (run,) = engine.engine._runs.values()
        kv_cache, total = map(float, re.findall(r"KV cache: ([\d.]+) GiB of ([\d.]+) GiB device memory", run.log)[0])
        # The default share of 0.92, less 0.25 GiB of weights and the activations of 256 tokens.
        assert 0.6 * total < kv_cache < 0.92 * total - 0.25
        pid = engine.engine.pid
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while running := processes_in_group(pid):
            assert time.monotonic() < deadline, running
            time.sleep(0.2)


def processes_in_group(group: int) -> list[int]:
    """The process ids of a process group, those that have ended left out."""
    shown = subprocess.run(["ps", "-e", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in shown.splitlines()]
    return [int(pid) for pid, pgid, state in rows if int(pgid) == group and not state.startswith("Z")]


@pytest.mark.claim
def test_a_310p_in_fp16_gives_the_same_log_probabilities_within_its_precision(prompts, wanted):
    tokens, expected = wanted
    environment = {**chip("310P3"), "ASCEND_SIMULATE_FLOAT32": "0"}
    with engine_on(environment, dtype="float16", **TIGHT) as engine:
        assert run_sync(engine.info()).device.startswith("npu (simulated 310P3), operator set npu_310p")
        for prompt, answer, logprobs in zip(prompts, tokens, expected, strict=True):
            assert prompt_logprobs(engine, prompt + answer) == pytest.approx(logprobs, abs=FP16_TOLERANCE)
        # Decoding too, and in chunks: the first tokens agree, until two are nearly equally likely.
        answers = complete_together(engine, prompts, NUM_TOKENS)
        agreeing = sum(answer == wanted for answer, wanted in zip(answers, tokens, strict=True))
        assert agreeing >= len(prompts) // 2
        assert metric(engine, "vllm:num_preemptions_total") > 0
