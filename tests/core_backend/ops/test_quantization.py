"""The CPU's W8A8: exact integer sums, on processors with and without instructions for them, and by our kernel."""

import os
import subprocess
import sys

import pytest
import torch

from core_backend.ops.cpu.quantization import (
    EXACT_COLUMNS,
    integer_matmul,
    matmul_in_blocks,
    quantize_per_token,
    quantized_linear,
)


def random_int8(*shape):
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("matmul", [integer_matmul, matmul_in_blocks])
@pytest.mark.parametrize("num_tokens", [0, 1, 33])
def test_sums_of_int8_products_are_exact(matmul, num_tokens):
    x, weight = random_int8(num_tokens, 3 * EXACT_COLUMNS + 7), random_int8(40, 3 * EXACT_COLUMNS + 7)
    assert torch.equal(matmul(x, weight).long(), (x.double() @ weight.double().t()).long())


@pytest.mark.parametrize("matmul", [integer_matmul, matmul_in_blocks])
def test_the_largest_sums_are_exact(matmul):
    smallest = torch.full((2, 8 * EXACT_COLUMNS + 1), -128, dtype=torch.int8)
    assert matmul(smallest, smallest).unique().tolist() == [128 * 128 * (8 * EXACT_COLUMNS + 1)]


def test_sums_are_exact_on_a_processor_without_instructions_for_int8():
    code = (
        "import torch; from core_backend.ops.cpu.quantization import integer_matmul as matmul;"
        "x = torch.full((3, 64), 127, dtype=torch.int8);"
        "print(torch.equal(matmul(x, x), torch.full((3, 3), 127 * 127 * 64, dtype=torch.int32)))"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert done.stdout == "True\n"


def test_a_token_is_scaled_by_its_largest_magnitude():
    quantized, scale = quantize_per_token(torch.tensor([[-2.54, 1.27, 0.02], [0, 0, 0]]))
    assert quantized.tolist() == [[-127, 64, 1], [0, 0, 0]]
    assert scale.tolist() == pytest.approx([0.02, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_quantized_layer_is_close_to_the_layer_it_was_made_of(dtype):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 3, 64), torch.randn(16, 64), torch.randn(16)
    quantized, scale = quantize_per_token(weight)
    actual = quantized_linear(x.to(dtype), quantized, scale, bias.to(dtype))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), torch.nn.functional.linear(x, weight, bias), atol=0.3, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_tokens", [0, 1, 2, 13, 300])
@pytest.mark.parametrize(("output_size", "input_size"), [(40, 16), (96, 576), (1, 2048), (50, 40)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_every_operator_set_computes_the_same_to_the_bit(ops, dtype, num_tokens, output_size, input_size, has_bias):
    torch.manual_seed(0)
    x = torch.randn(num_tokens, input_size).to(dtype)
    x[::5] = 0  # tokens without a magnitude
    weight, scale = random_int8(output_size, input_size), torch.rand(output_size)
    bias = torch.randn(output_size).to(dtype) if has_bias else None
    packed = ops.pack_quantized_weight(weight.clone())
    assert torch.equal(ops.quantized_linear(x, packed, scale, bias), quantized_linear(x, weight, scale, bias))


def test_the_largest_weights_and_inputs_do_not_overflow(ops):
    x = torch.full((3, 8192), -1.0, dtype=torch.bfloat16)
    x[1] = 1
    weight = torch.full((33, 8192), -128, dtype=torch.int8)
    out = ops.quantized_linear(x, ops.pack_quantized_weight(weight.clone()), torch.ones(33), None)
    torch.testing.assert_close(out.float(), x.float() @ weight.float().t(), rtol=0.01, atol=0)
