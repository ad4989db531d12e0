"""Steps that are noted and made again, on a model of a few layers; against the model called as it is."""

from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist

from core_backend.cpu_kernels import build

pytestmark = pytest.mark.skipif(build.why_unavailable() is not None, reason=f"no kernels: {build.why_unavailable()}")

SIZE, NUM_LAYERS, VOCABULARY = 64, 5, 100


@dataclass
class Requests:
    """What stands for attention's requests: a number each."""

    numbers: torch.Tensor


class Model:
    """Embeddings, layers with a residual, and something of each request's; counts how often it is called."""

    def __init__(self, extra=None):
        torch.manual_seed(0)
        build.load()
        self.ops = torch.ops.ascend_cpu
        self.embeddings = torch.randn(VOCABULARY, SIZE).bfloat16()
        self.norms = [torch.randn(SIZE).bfloat16() for _ in range(NUM_LAYERS)]
        self.weights = [(torch.randn(2 * SIZE, SIZE) / 8).bfloat16() for _ in range(NUM_LAYERS)]
        self.packed = [self.ops.pack_weight(weight) for weight in self.weights]
        self.extra = extra
        self.requests = None
        self.num_calls = 0

    def __call__(self, input_ids, scale=None):
        self.num_calls += 1
        x = torch.nn.functional.embedding(input_ids, self.embeddings)
        x = x + self.requests.numbers.view(-1, 1)
        residual = x
        for norm, weight in zip(self.norms, self.packed, strict=True):
            x, residual = self.ops.add_rms_norm(x, residual, norm, 1e-6)
            left, right = self.ops.linear(x, weight, None).split(SIZE, dim=-1)
            x = self.ops.silu_and_mul(torch.cat([right, left], dim=-1))
        return x if self.extra is None else self.extra(x)


@pytest.fixture(scope="module")
def recorded_steps():
    """The module, not at the top, as it imports vLLM, which takes seconds."""
    from core_backend.worker import recorded_steps

    return recorded_steps


@pytest.fixture
def recorded(recorded_steps, monkeypatch):
    """Makes a recorded model whose requests are what its `requests` says."""

    def make(**settings):
        model = Model(**settings)
        monkeypatch.setattr(recorded_steps, "_requests_of_decode_step", lambda: [model.requests.numbers])
        return model, recorded_steps.RecordedModel(model)

    return make


def step(model, forward, num_tokens, seed):
    """The model's output for other tokens and requests, through `forward`."""
    generator = torch.Generator().manual_seed(seed)
    model.requests = Requests(torch.randn(num_tokens, generator=generator).bfloat16())
    ids = torch.randint(0, VOCABULARY, (num_tokens,), generator=generator)
    with torch.inference_mode():
        return forward(input_ids=ids).clone()


def test_a_step_made_again_is_the_model_on_other_inputs(recorded):
    model, forward = recorded()
    for seed, num_tokens in enumerate([3, 1, 3, 1, 17, 3, 17, 1]):
        assert torch.equal(step(model, forward, num_tokens, seed), step(model, model, num_tokens, seed))
    # Through `forward` the first step, and each size once more; and once each step beside it.
    assert model.num_calls == 1 + 3 + 8


def test_what_a_model_makes_in_its_first_step_stays_its_own(recorded):
    made = []

    def extra(x):
        made[:] = made or [torch.full((SIZE,), 3.0).bfloat16().mul(2)]
        return x + made[0]

    model, forward = recorded(extra=extra)
    for seed in range(4):
        step(model, forward, 5, seed)
        assert torch.equal(made[0], torch.full((SIZE,), 6.0).bfloat16())


def test_its_memory_is_that_of_one_layer_and_not_of_all(recorded):
    model, forward = recorded()
    step(model, forward, 50, 0)
    step(model, forward, 50, 0)
    (kept,) = forward.steps.values()
    step(model, forward, 50, 1)
    first, last = kept.output.data_ptr(), kept.output.data_ptr() + kept.output.nbytes
    assert kept.output.untyped_storage().nbytes() == last - first
    assert kept.calls.num_bytes() < 8 * 50 * SIZE * 2 < NUM_LAYERS * 5 * 50 * SIZE * 2


@pytest.mark.parametrize("extra", [lambda x: x[x > 0].sum(), lambda x: torch.cumsum(x, 0), lambda x: (x, x)])
def test_a_model_with_other_operators_runs_as_it_is(recorded, extra):
    model, forward = recorded(extra=extra)
    for seed in range(3):
        model.requests = Requests(torch.zeros(4).bfloat16())
        with torch.inference_mode():
            forward(input_ids=torch.arange(4) + seed)
    assert model.num_calls == 3  # as often as it is called
    assert not forward.steps
    assert not forward.is_recordable


def test_a_model_on_several_ranks_runs_as_it_is(recorded):
    def extra(x):
        dist.all_reduce(x)
        return x

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model, forward = recorded(extra=extra)
        for seed in range(3):
            step(model, forward, 4, seed)
    finally:
        dist.destroy_process_group()
    assert model.num_calls == 3
    assert not forward.is_recordable


def test_what_was_not_used_for_longest_is_forgotten(recorded, recorded_steps, monkeypatch):
    monkeypatch.setattr(recorded_steps, "MAX_STEPS", 2)
    model, forward = recorded()
    for seed, num_tokens in enumerate([1, 2, 1, 3]):
        step(model, forward, num_tokens, seed)
    assert list(forward.steps) == [(("input_ids", 1),), (("input_ids", 3),)]


def test_a_step_that_fails_is_not_kept(recorded):
    def fail(x):
        raise RuntimeError("no")

    model, forward = recorded(extra=fail)
    with pytest.raises(RuntimeError, match="no"):
        step(model, forward, 2, 0)
    model.extra = None
    assert torch.equal(step(model, forward, 2, 1), step(model, model, 2, 1))
