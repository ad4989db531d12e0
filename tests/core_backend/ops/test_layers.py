"""Norms, rotary, activations and linear layers against their formulas, in fp64."""

import pytest
import torch

DTYPES = [torch.float32, torch.bfloat16]
# Relative to values around 1: fp32 rounds at 6e-8, bf16 at 4e-3; each operator rounds up to three times.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def assert_close(actual, expected, dtype):
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def expected_rms_norm(x, weight, epsilon):
    x = x.double()
    return x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weight.double()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden_size", [24, 64])
@pytest.mark.parametrize("num_tokens", [0, 1, 5, 2000])
def test_rms_norm_is_the_formula(ops, num_tokens, hidden_size, dtype):
    x, weight = torch.randn(num_tokens, hidden_size).to(dtype), torch.randn(hidden_size).to(dtype)
    assert_close(ops.rms_norm(x, weight, 1e-5), expected_rms_norm(x, weight, 1e-5), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden_size", [24, 64])
def test_add_rms_norm_returns_the_norm_of_the_sum_and_the_sum(ops, hidden_size, dtype):
    x, residual, weight = (torch.randn(*size, hidden_size).to(dtype) for size in ((5,), (5,), ()))
    before = x.clone(), residual.clone()
    normalized, new_residual = ops.add_rms_norm(x, residual, weight, 1e-5)
    assert_close(new_residual, x.double() + residual.double(), dtype)
    assert_close(normalized, expected_rms_norm(x + residual, weight, 1e-5), dtype)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [8, 48])
def test_silu_and_mul_gates_the_second_half_with_the_first(ops, size, dtype):
    x = (torch.randn(3, 2, 2 * size) * 4).to(dtype)
    x[0, 0, :3] = torch.tensor([-100.0, 0.0, 100.0])
    gate, up = x.double().split(size, dim=-1)
    assert_close(ops.silu_and_mul(x), gate * torch.sigmoid(gate) * up, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("head_size", "rotary_dim"), [(8, 8), (8, 4), (64, 64), (64, 32)])
@pytest.mark.parametrize("is_neox_style", [True, False])
def test_rotary_turns_each_pair_by_its_angle(ops, is_neox_style, head_size, rotary_dim, dtype):
    positions = torch.tensor([0, 3, 11])
    angles = torch.outer(torch.arange(16).double(), 100.0 ** -(torch.arange(0, rotary_dim, 2) / rotary_dim))
    cache = torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)
    query, key = torch.randn(3, 2 * head_size).to(dtype), torch.randn(3, head_size).to(dtype)
    rotated = ops.rotary(positions, query, key, cache, head_size=head_size, is_neox_style=is_neox_style)
    for before, after in zip((query, key), rotated, strict=True):
        expected = before.double().view(3, -1, head_size).clone()
        for token, position in enumerate(positions.tolist()):
            for pair in range(rotary_dim // 2):
                i, j = (pair, pair + rotary_dim // 2) if is_neox_style else (2 * pair, 2 * pair + 1)
                cos, sin = cache[position, pair].double(), cache[position, pair + rotary_dim // 2].double()
                a, b = before.double().view(3, -1, head_size)[token, :, [i, j]].unbind(-1)
                expected[token, :, i], expected[token, :, j] = a * cos - b * sin, b * cos + a * sin
        assert_close(after, expected.view(before.shape), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotary_takes_slices_of_a_joint_projection(ops, dtype):
    """vLLM passes views of the qkv projection, which are not contiguous."""
    cache = torch.randn(16, 32).to(dtype)
    qkv = torch.randn(3, 32 + 32 + 32).to(dtype)
    query, key, _ = qkv.split(32, dim=-1)
    positions = torch.tensor([1, 2, 3])
    from_views = ops.rotary(positions, query, key, cache, head_size=32, is_neox_style=True)
    copies = ops.rotary(positions, query.contiguous(), key.contiguous(), cache, head_size=32, is_neox_style=True)
    assert all(torch.equal(a, b) for a, b in zip(from_views, copies, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("sizes", [(32, 48), (160, 320), (40, 72)], ids=str)
@pytest.mark.parametrize("num_tokens", [0, 1, 3, 40, 1000])
def test_linear_on_a_packed_weight_is_the_formula(ops, num_tokens, sizes, with_bias, dtype):
    input_size, output_size = sizes
    x, weight = torch.randn(num_tokens, input_size).to(dtype), torch.randn(output_size, input_size) / input_size**0.5
    weight = weight.to(dtype)
    bias = torch.randn(output_size).to(dtype) if with_bias else None
    expected = x.double() @ weight.double().T + (bias.double() if with_bias else 0.0)
    with torch.inference_mode():
        assert_close(ops.linear(x, ops.pack_linear_weight(weight), bias), expected, dtype)


@pytest.mark.parametrize("num_tokens", [0, 1, 2, 13, 40, 300])
@pytest.mark.parametrize("vocab_size", [33, 48, 320])
def test_logits_are_not_rounded_where_there_is_a_kernel(ops, num_tokens, vocab_size):
    x, weight = torch.randn(num_tokens, 64).bfloat16(), torch.randn(vocab_size, 64).bfloat16()
    bias, expected = torch.randn(vocab_size).bfloat16(), x.double() @ weight.double().T
    with torch.inference_mode():
        packed = ops.pack_linear_weight(weight)
        has_kernel = packed.dim() == 3
        for given, formula in ((None, expected), (bias, expected + bias.double())):
            logits = ops.logits(x, packed, given)
            assert logits.dtype == (torch.float32 if has_kernel else torch.bfloat16)
            exact = 1e-4 if has_kernel else 3e-2  # sums of 64 products in fp32
            torch.testing.assert_close(logits.double(), formula, rtol=exact, atol=exact)
