import pytest
import torch

from core_backend.quantization.packing import dequantize, groups_of, unpack_awq, unpack_int32


@pytest.mark.parametrize(("num_bits", "expected"), [(4, [1, 2, 3, 4, 5, 6, 7, 15]), (8, [0x21, 0x43, 0x65, 0xF7])])
def test_words_are_read_from_their_lowest_bits(num_bits, expected):
    word = torch.tensor([[0xF7654321 - (1 << 32)]], dtype=torch.int32)  # its highest bit is the sign
    assert unpack_int32(word, num_bits, dim=1).tolist() == [expected]
    assert unpack_int32(word, num_bits, dim=0).tolist() == [[value] for value in expected]


def test_awqs_words_hold_even_columns_before_odd_ones():
    word = torch.tensor([[0x75316420]], dtype=torch.int32)
    assert unpack_awq(word).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]


def test_each_input_has_the_scale_and_zero_point_of_its_group():
    values = torch.tensor([[0, 1, 2, 3]])
    scales, zeros = torch.tensor([[1.0, 10.0]]), torch.tensor([[0, 1]])
    assert dequantize(values, scales, zeros, groups_of(4, 2, values.device)).tolist() == [[0, 1, 10, 20]]
    assert dequantize(values, scales, 2, torch.tensor([1, 0, 1, 0])).tolist() == [[-20, -1, 0, 1]]


def test_without_groups_all_inputs_are_one():
    assert groups_of(3, -1, torch.device("cpu")).tolist() == [0, 0, 0]
