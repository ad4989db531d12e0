"""In bfloat16, with whatever kernels this machine has, the engine is as near to fp32 as Hugging Face is in bfloat16."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
from tests.conftest import CHAT_MODEL
from tests.e2e.prompts import prompts_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

LENGTHS = (5, 16, 33, 130, 400, 900)  # below and above a tile, a block, a step


def logprobs_of_huggingface(folder, prompts, dtype):
    """Of every token of each prompt but the first."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    found = []
    for prompt in prompts:
        with torch.inference_mode():
            logits = model(torch.tensor([prompt])).logits[0, :-1].float()
        found.append(logits.log_softmax(-1).gather(1, torch.tensor(prompt[1:])[:, None])[:, 0])
    return torch.cat(found)


def logprobs_of_engine(backend, prompts):
    found = []
    for prompt in prompts:
        body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        (choice,) = run_sync(backend.complete(body))["choices"]
        pairs = zip(prompt[1:], choice["prompt_logprobs"][1:], strict=True)
        found += [position[str(token)]["logprob"] for token, position in pairs]
    return torch.tensor(found)


def test_log_probabilities_are_as_near_to_fp32_as_those_of_hugging_face(chat_model_folder, reference):
    prompts = prompts_of(list(LENGTHS), reference)
    exact, theirs = (
        logprobs_of_huggingface(chat_model_folder, prompts, dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    backend = EmbeddedBackend(CHAT_MODEL, dtype="bfloat16", max_model_len=1024, max_num_batched_tokens=512)
    try:
        ours = logprobs_of_engine(backend, prompts)
    finally:
        run_sync(backend.close())
    # Room for other CPUs: on one with the kernels it was 0.91 in the mean, 0.56 at most.
    assert (ours - exact).abs().mean() <= 1.25 * (theirs - exact).abs().mean()
    assert (ours - exact).abs().max() <= 1.25 * (theirs - exact).abs().max()
