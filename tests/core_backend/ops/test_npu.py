"""Every operator of the npu sets against the CPU set, which is the specification, on the same random inputs.

Which npu set depends on the chip: ASCEND_SIMULATE=310P3 tests that of the Atlas 300I Duo.
"""

import math

import pytest
import torch

from core_backend.device import current_device
from core_backend.ops import cpu as spec
from tests.npu import new_cache

pytestmark = pytest.mark.npu

# fp32: the order of additions differs. The others: both sides compute in fp32 and round their results once, and the
# CPU's kernels round some intermediate results too; values stay below 8.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 6e-2, torch.float16: 8e-3}
HEADS = [(4, 4), (4, 2), (4, 1), (6, 2)]  # four groupings


# hypothesis and vLLM are not imported at the top: this takes seconds, also of those who only collect the tests.
@pytest.fixture(scope="module")
def st():
    """What examples are drawn from."""
    from hypothesis import strategies

    return strategies


def on_examples(**drawn):
    """Makes of a function of `drawn` one that calls it on sixty examples of them."""
    from hypothesis import HealthCheck, given, settings

    sixty = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
    return lambda check: sixty(given(**drawn)(check))


def seeds(st):
    return st.integers(0, 2**31)


def num_tokens(st):
    return st.sampled_from([0, 1, 2, 7, 33])


def lengths(st):
    return st.lists(st.tuples(st.integers(0, 150), st.integers(1, 40)), min_size=0, max_size=4)


@pytest.fixture(scope="module")
def hardware():
    return current_device().hardware


@pytest.fixture(scope="module")
def ours():
    from core_backend.ops.table import operators

    return operators()


def dtypes(st):
    """The chip's own, and fp32 where the simulated device takes it."""
    return st.sampled_from([getattr(torch, name) for name in current_device().hardware.dtypes])


def on_npu(x):
    """Tensors anywhere in x, copied to the device."""
    if isinstance(x, torch.Tensor):
        return x.to("npu")
    return [on_npu(element) for element in x] if isinstance(x, list) else x


def assert_close(actual, expected):
    assert actual.device.type == "npu"
    assert actual.dtype == expected.dtype
    tolerance = TOLERANCE.get(expected.dtype, 0)
    torch.testing.assert_close(actual.cpu(), expected, rtol=tolerance, atol=tolerance)


def randn(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype)


def only_on(hardware, feature):
    if feature in hardware.refused:
        pytest.skip(f"{feature} is refused on {hardware.name}")


@pytest.fixture(scope="module")
def one_table():
    angles = torch.rand(50, 32) * 6
    table = torch.cat((angles.cos(), angles.sin()), -1).to(torch.float16)
    return table, table.to("npu")


# The first of this file: the 310P's operator keeps the first table that a process gives it, as a model does.
def test_rotary_embedding_with_one_table(ours, one_table, st):
    @on_examples(rows=num_tokens(st), neox=st.booleans(), seed=seeds(st))
    def check(rows, neox, seed):
        torch.manual_seed(seed)
        table, npu_table = one_table
        positions = torch.randint(0, 50, (rows,))
        query, key = randn(rows, 4 * 64, dtype=table.dtype), randn(rows, 2 * 64, dtype=table.dtype)
        style = {"head_size": 64, "is_neox_style": neox}
        actual = ours.rotary(*on_npu([positions, query, key]), npu_table, **style)
        for mine, expected in zip(actual, spec.rotary(positions, query, key, table, **style), strict=True):
            assert_close(mine, expected)

    check()


class Batch:
    """Requests of given (context, query) lengths in a paged cache with shuffled blocks, on both devices."""

    def __init__(self, hardware, ours, requests, heads, head_size, block_size, dtype):
        self.hardware, self.ours, self.block_size = hardware, ours, block_size
        self.num_heads, self.num_kv_heads = heads
        self.seq_lens = [context + new for context, new in requests]
        num_blocks = [math.ceil(n / block_size) for n in self.seq_lens]
        ids = (torch.randperm(sum(num_blocks) + 1) + 1).tolist()  # block 0 is nobody's
        self.block_table = torch.zeros(len(requests), max(num_blocks, default=0) + 1, dtype=torch.int32)
        slots = []
        for row, (seq_len, count) in enumerate(zip(self.seq_lens, num_blocks, strict=True)):
            mine = torch.tensor([ids.pop() for _ in range(count)])
            self.block_table[row, :count] = mine
            positions = torch.arange(seq_len)
            slots.append(mine[positions // block_size] * block_size + positions % block_size)
        # Padding in the middle and at the end: its keys must not be stored.
        padding = torch.tensor([-1])
        slot_mapping = torch.cat([part for slot in slots for part in (slot, padding)] or [padding])
        key, value = (randn(len(slot_mapping), self.num_kv_heads, head_size, dtype=dtype) for _ in range(2))
        shape = (sum(num_blocks) + 2, block_size, self.num_kv_heads, head_size)
        self.caches = torch.zeros(2, *shape, dtype=dtype)
        self.npu_caches = [new_cache(hardware.kv_cache_shape(*shape)[1:], dtype) for _ in range(2)]
        spec.write_kv(key, value, *self.caches, spec.prepare_slot_mapping(slot_mapping))
        ours.write_kv(*on_npu([key, value]), *self.npu_caches, ours.prepare_slot_mapping(slot_mapping.to("npu")))
        # A slice of something wider, as a layer without rotary embedding gives it.
        num_new = sum(new for _, new in requests)
        self.query = randn(num_new, 2 * self.num_heads, head_size, dtype=dtype)[:, : self.num_heads]
        self.query_start_loc = [0, *torch.tensor([new for _, new in requests], dtype=torch.int64).cumsum(0).tolist()]

    def cache_as_nd(self):
        """The npu cache in the CPU's layout."""
        caches = torch.stack([cache.cpu() for cache in self.npu_caches])
        if self.hardware.kv_layout == "nd":
            return caches
        two, blocks, _, slots, _ = caches.shape
        return caches.permute(0, 1, 3, 2, 4).reshape(two, blocks, slots, self.num_kv_heads, -1)

    def run(self, **variant):
        plan_arguments = {"block_size": self.block_size, "causal": True}
        expected = torch.full_like(self.query.contiguous(), float("nan"))
        plan = spec.plan_attention(self.query_start_loc, self.seq_lens, self.block_table, **plan_arguments)
        spec.paged_attention(self.query, *self.caches, plan, scale=0.2, out=expected, **variant)
        out = torch.full_like(expected, float("nan"), device="npu")
        plan = self.ours.plan_attention(
            self.query_start_loc, self.seq_lens, self.block_table.to("npu"), **plan_arguments
        )
        variant = {name: on_npu(value) for name, value in variant.items()}
        wide = torch.cat((self.query, self.query), dim=1).to("npu")
        self.ours.paged_attention(wide[:, : self.num_heads], *self.npu_caches, plan, scale=0.2, out=out, **variant)
        return out, expected


def block_sizes(st):
    return st.sampled_from(current_device().hardware.block_sizes)


def test_paged_attention_of_every_phase(hardware, ours, st):
    @on_examples(
        requests=lengths(st),
        heads=st.sampled_from(HEADS),
        head_size=st.sampled_from([64, 128]),
        seed=seeds(st),
        data=st.data(),
    )
    def check(requests, heads, head_size, seed, data):
        torch.manual_seed(seed)
        batch = Batch(hardware, ours, requests, heads, head_size, data.draw(block_sizes(st)), data.draw(dtypes(st)))
        assert torch.equal(batch.cache_as_nd(), batch.caches), "what write_kv stored, padding left out"
        assert_close(*batch.run(sliding_window=None))

    check()


def test_paged_attention_of_a_batch_that_only_decodes(hardware, ours, st):
    @on_examples(
        contexts=st.lists(st.integers(0, 300), min_size=1, max_size=6), heads=st.sampled_from(HEADS), seed=seeds(st)
    )
    def check(contexts, heads, seed):
        torch.manual_seed(seed)
        dtype = getattr(torch, hardware.dtypes[-1])
        assert_close(*Batch(hardware, ours, [(n, 1) for n in contexts], heads, 64, 128, dtype).run(sliding_window=None))

    check()


def test_paged_attention_with_a_sliding_window(hardware, ours, st):
    only_on(hardware, "sliding window attention")

    @on_examples(requests=lengths(st), window=st.sampled_from([1, 5, 64, 1000]), seed=seeds(st), data=st.data())
    def check(requests, window, seed, data):
        torch.manual_seed(seed)
        batch = Batch(hardware, ours, requests, (4, 2), 64, data.draw(block_sizes(st)), data.draw(dtypes(st)))
        assert_close(*batch.run(sliding_window=window))

    check()


def test_paged_attention_with_sinks(hardware, ours, st):
    only_on(hardware, "attention sinks")

    @on_examples(requests=lengths(st), seed=seeds(st), data=st.data())
    def check(requests, seed, data):
        torch.manual_seed(seed)
        batch = Batch(hardware, ours, requests, (4, 2), 64, data.draw(block_sizes(st)), data.draw(dtypes(st)))
        # In bf16 on both sides: the operator takes sinks in it.
        assert_close(*batch.run(sliding_window=None, sinks=randn(4, dtype=torch.bfloat16).to(batch.query.dtype)))

    check()


def test_attention_inside_packed_sequences(hardware, ours, st):
    @on_examples(
        sequences=st.lists(st.integers(1, 60), max_size=5),
        head_size=st.sampled_from([32, 64, 72, 128]),
        causal=st.booleans(),
        seed=seeds(st),
        data=st.data(),
    )
    def check(sequences, head_size, causal, seed, data):
        torch.manual_seed(seed)
        window = None if "sliding window attention" in hardware.refused else data.draw(st.sampled_from([None, 3, 50]))
        dtype = data.draw(dtypes(st))
        query, key, value = (randn(sum(sequences), heads, head_size, dtype=dtype) for heads in (4, 2, 2))
        assert_same_varlen_attention(ours, sequences, query, key, value, causal=causal, window=window)

    check()


def test_attention_inside_more_sequences_than_one_call_takes(hardware, ours):
    torch.manual_seed(0)
    dtype = getattr(torch, hardware.dtypes[0])
    query, key, value = (randn(2500, 2, 32, dtype=dtype) for _ in range(3))
    assert_same_varlen_attention(ours, [2] * 1250, query, key, value, causal=False, window=None)


def assert_same_varlen_attention(ours, sequences, query, key, value, *, causal, window):
    starts = [0, *torch.tensor(sequences, dtype=torch.int64).cumsum(0).tolist()]
    results = []
    for ops, device in ((ours, "npu"), (spec, "cpu")):
        plan = ops.plan_attention(starts, sequences, None, block_size=128, causal=causal)
        out = torch.full_like(query, float("nan"), device=device)
        tensors = (x.to(device) for x in (query, key, value))
        ops.varlen_attention(*tensors, plan, scale=0.2, sliding_window=window, out=out)
        results.append(out)
    assert_close(*results)


def test_latent_attention_over_the_paged_cache(hardware, ours, st):
    only_on(hardware, "MLA")

    @on_examples(
        contexts=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 5)), min_size=1, max_size=4),
        seed=seeds(st),
        data=st.data(),
    )
    def check(contexts, seed, data):
        torch.manual_seed(seed)
        dtype = data.draw(dtypes(st))
        batch = Batch(hardware, ours, contexts, (4, 1), 512, 16, dtype)
        pe_cache = randn(*batch.caches.shape[1:4], 64, dtype=dtype)
        query_pe = randn(len(batch.query), 4, 64, dtype=dtype)
        results = []
        for ops, device, cache in ((ours, "npu", batch.npu_caches[0]), (spec, "cpu", batch.caches[0])):
            table = batch.block_table.to(device)
            plan = ops.plan_attention(batch.query_start_loc, batch.seq_lens, table, block_size=16, causal=True)
            out = torch.full_like(batch.query, float("nan"), device=device)
            ops.mla_paged_attention(
                batch.query.to(device), query_pe.to(device), cache, pe_cache.to(device), plan, scale=0.05, out=out
            )
            results.append(out)
        assert_close(*results)

    check()


def test_latent_attention_of_a_prompt_in_two_parts_merged(hardware, ours, st):
    """A prompt's own tokens, then a chunk of context that some requests do not have."""
    only_on(hardware, "MLA")

    @on_examples(
        sequences=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30)), min_size=1, max_size=3),
        causal=st.booleans(),
        seed=seeds(st),
        data=st.data(),
    )
    def check(sequences, causal, seed, data):
        torch.manual_seed(seed)
        dtype = data.draw(dtypes(st))
        new, context = ([row[i] for row in sequences] for i in (0, 1))
        results = []
        query, query_pe = randn(sum(new), 4, 128, dtype=dtype), randn(sum(new), 4, 64, dtype=dtype)
        parts = []
        for lens in (new, context):
            key_value = [randn(sum(lens), 4, size, dtype=dtype) for size in (128, 64, 128)]
            parts.append((key_value, [0, *torch.tensor(lens).cumsum(0).tolist()]))
        starts = parts[0][1]
        for ops, device in ((ours, "npu"), (spec, "cpu")):
            pieces = [
                ops.mla_varlen_attention(
                    query.to(device),
                    query_pe.to(device),
                    *(x.to(device) for x in key_value),
                    query_start_loc=starts,
                    kv_start_loc=kv_starts,
                    causal=causal and kv_starts is starts,
                    scale=0.07,
                )
                for key_value, kv_starts in parts
            ]
            results.append(ops.merge_attention([out for out, _ in pieces], [lse for _, lse in pieces]))
        assert_close(*results)

    check()


def test_norms(ours, st):
    @on_examples(rows=num_tokens(st), size=st.sampled_from([16, 48, 576]), seed=seeds(st), data=st.data())
    def check(rows, size, seed, data):
        torch.manual_seed(seed)
        dtype = data.draw(dtypes(st))
        x, residual, weight = randn(rows, size, dtype=dtype), randn(rows, size, dtype=dtype), randn(size, dtype=dtype)
        assert_close(ours.rms_norm(*on_npu([x, weight]), 1e-5), spec.rms_norm(x, weight, 1e-5))
        actual = ours.add_rms_norm(*on_npu([x, residual, weight]), 1e-5)
        for mine, expected in zip(actual, spec.add_rms_norm(x, residual, weight, 1e-5), strict=True):
            assert_close(mine, expected)

    check()


def test_gated_activations(ours, st):
    @on_examples(
        rows=num_tokens(st),
        size=st.sampled_from([2, 30, 128]),
        approximate=st.sampled_from(["none", "tanh"]),
        data=st.data(),
    )
    def check(rows, size, approximate, data):
        x = randn(rows, size, dtype=data.draw(dtypes(st)))
        assert_close(ours.silu_and_mul(x.to("npu")), spec.silu_and_mul(x))
        assert_close(ours.gelu_and_mul(x.to("npu"), approximate), spec.gelu_and_mul(x, approximate))

    check()


def test_rotary_embedding_whole_and_partial(ours, st):
    @on_examples(
        rows=num_tokens(st),
        sizes=st.sampled_from([(64, 64), (128, 128), (128, 64), (128, 32), (80, 80), (96, 48)]),
        neox=st.booleans(),
        seed=seeds(st),
        data=st.data(),
    )
    def check(rows, sizes, neox, seed, data):
        torch.manual_seed(seed)
        dtype = data.draw(dtypes(st))
        head_size, rotary_dim = sizes
        angles = torch.rand(50, rotary_dim // 2) * 6
        cos_sin_cache = torch.cat((angles.cos(), angles.sin()), -1).to(dtype)
        query, key = randn(rows, 4 * head_size, dtype=dtype), randn(rows, 2 * head_size, dtype=dtype)
        inputs = [torch.randint(0, 50, (rows,)), query.clone(), key.clone(), cos_sin_cache]
        style = {"head_size": head_size, "is_neox_style": neox}
        actual = ours.rotary(*on_npu(inputs), **style)
        for mine, expected in zip(actual, spec.rotary(*inputs, **style), strict=True):
            assert_close(mine, expected)

    check()


def test_rotary_embedding_with_three_positions(ours, st):
    @on_examples(
        rows=num_tokens(st),
        section=st.sampled_from([[16, 24, 24], [24, 20, 20], [8, 12, 12], [10, 11, 11]]),
        interleaved=st.booleans(),
        neox=st.booleans(),
        seed=seeds(st),
        data=st.data(),
    )
    def check(rows, section, interleaved, neox, seed, data):
        torch.manual_seed(seed)
        dtype = data.draw(dtypes(st))
        rotary_dim = 2 * sum(section)
        angles = torch.rand(50, rotary_dim // 2) * 6
        cos_sin_cache = torch.cat((angles.cos(), angles.sin()), -1).to(dtype)
        inputs = [
            torch.randint(0, 50, (3, rows)),
            randn(rows, 4 * 128, dtype=dtype),
            randn(rows, 2 * 128, dtype=dtype),
            cos_sin_cache,
        ]
        style = {"head_size": 128, "mrope_section": section, "is_neox_style": neox, "is_interleaved": interleaved}
        actual = ours.mrope(*on_npu(inputs), **style)
        for mine, expected in zip(actual, spec.mrope(*inputs, **style), strict=True):
            assert_close(mine, expected)

    check()


def test_linear_layers_on_packed_weights(ours, st):
    @on_examples(rows=num_tokens(st), with_bias=st.booleans(), seed=seeds(st), data=st.data())
    def check(rows, with_bias, seed, data):
        torch.manual_seed(seed)
        dtype = data.draw(dtypes(st))
        x, weight = randn(rows, 48, dtype=dtype), randn(32, 48, dtype=dtype) / 7
        bias = randn(32, dtype=dtype) if with_bias else None
        actual = ours.linear(x.to("npu"), ours.pack_linear_weight(weight.to("npu")), on_npu(bias))
        assert_close(actual, torch.nn.functional.linear(x, weight, bias))

    check()


def test_linear_layers_in_int8(hardware, ours, st):
    only_on(hardware, "W8A8 dynamic")

    @on_examples(
        rows=num_tokens(st), with_bias=st.booleans(), has_zero_row=st.booleans(), seed=seeds(st), data=st.data()
    )
    def check(rows, with_bias, has_zero_row, seed, data):
        torch.manual_seed(seed)
        dtype = data.draw(dtypes(st).filter(lambda dtype: dtype != torch.float32))
        x = randn(rows, 64, dtype=dtype)
        if has_zero_row and rows:
            x[0] = 0
        weight = torch.randint(-127, 128, (32, 64), dtype=torch.int8)
        scale, bias = torch.rand(32) / 500, randn(32, dtype=dtype) if with_bias else None
        packed = ours.pack_quantized_weight(weight.to("npu"))
        actual = ours.quantized_linear(x.to("npu"), packed, scale.to("npu"), on_npu(bias))
        assert_close(actual, spec.quantized_linear(x, spec.pack_quantized_weight(weight), scale, bias))

    check()


def test_routing_chooses_the_same_experts(ours, st):
    from hypothesis import assume

    @on_examples(
        rows=num_tokens(st),
        top_k=st.integers(1, 4),
        scoring=st.sampled_from(["softmax", "sigmoid"]),
        renormalize=st.booleans(),
        with_bias=st.booleans(),
        groups=st.sampled_from([(1, 1), (4, 2), (4, 4), (8, 3)]),
        seed=seeds(st),
    )
    def check(rows, top_k, scoring, renormalize, with_bias, groups, seed):
        torch.manual_seed(seed)
        logits, bias = randn(rows, 16), randn(16) if with_bias else None
        num_groups, open_groups = groups
        assume(top_k <= 16 // num_groups * open_groups)
        settings_ = {
            "scoring": scoring,
            "renormalize": renormalize,
            "num_expert_groups": num_groups,
            "top_k_groups": open_groups,
            "scaling_factor": 2.5,
        }
        weights, ids = ours.route_topk(logits.to("npu"), top_k, bias=on_npu(bias), **settings_)
        expected_weights, expected_ids = spec.route_topk(logits, top_k, bias=bias, **settings_)
        assert torch.equal(ids.cpu(), expected_ids)
        assert_close(weights, expected_weights)

    check()


def test_experts_from_routing_to_the_weighted_sum(hardware, ours, st):
    """Also where only some experts are local, and where they get no token at all."""
    from hypothesis import assume

    @on_examples(
        rows=num_tokens(st),
        local=st.sampled_from([(0, 8), (2, 3), (7, 1)]),
        one_expert_gets_all=st.booleans(),
        transposed=st.booleans(),
        seed=seeds(st),
        data=st.data(),
    )
    def check(rows, local, one_expert_gets_all, transposed, seed, data):
        torch.manual_seed(seed)
        dtype = data.draw(dtypes(st))
        assume(not (hardware.name == "310P" and dtype != torch.float16))
        first, num_local = local
        x, weight = randn(rows, 32, dtype=dtype), randn(num_local, 32, 48, dtype=dtype) / 5
        if transposed:
            weight = weight.mT.contiguous().mT
        ids = torch.rand(rows, 8).topk(2).indices.int()
        if one_expert_gets_all:
            ids[:, 0], ids[:, 1] = 0, 1
        topk_weights = torch.rand(rows, 2)
        results = []
        for ops, device in ((ours, "npu"), (spec, "cpu")):
            experts = ops.route_to_experts(
                x.to(device), ids.to(device), num_experts=8, first=first, num_local=num_local
            )
            made = ops.grouped_matmul(experts.rows, weight.to(device), experts.counts)
            results.append(ops.combine_experts(made, experts.row_of, experts.counts, topk_weights.to(device)))
        assert_close(*results)

    check()


def test_sampling_hides_the_same_logits(ours, st):
    @on_examples(
        rows=st.sampled_from([0, 1, 5]),
        use_k=st.booleans(),
        use_p=st.booleans(),
        ties=st.booleans(),
        seed=seeds(st),
    )
    def check(rows, use_k, use_p, ties, seed):
        torch.manual_seed(seed)
        logits = randn(rows, 50)
        if ties:
            logits = (logits * 2).round() / 2
        k = torch.randint(1, 51, (rows,), dtype=torch.int32) if use_k else None
        p = torch.rand(rows).clamp(0.05, 1.0) if use_p else None
        expected = spec.apply_top_k_top_p(logits.clone(), k, p)
        assert_close(ours.apply_top_k_top_p(logits.to("npu"), on_npu(k), on_npu(p)), expected)

    check()


def test_slot_mapping(ours, st):
    @on_examples(requests=st.lists(st.integers(1, 20), min_size=1, max_size=4), seed=seeds(st))
    def check(requests, seed):
        torch.manual_seed(seed)
        starts = torch.tensor([0, *torch.tensor(requests).cumsum(0).tolist()], dtype=torch.int32)
        positions = torch.cat([torch.arange(n) + int(torch.randint(0, 30, ())) for n in requests])
        table = torch.randint(1, 99, (len(requests), 4), dtype=torch.int32)
        expected = torch.full((len(positions) + 3,), 7, dtype=torch.int64)
        actual = expected.to("npu")
        spec.compute_slot_mapping(positions, starts, table, 16, expected)
        ours.compute_slot_mapping(*on_npu([positions, starts, table]), 16, actual)
        assert_close(actual, expected)

    check()
