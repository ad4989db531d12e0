"""Attention of vision encoders, in every form in which vLLM's models give it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

HEADS, KV_HEADS = 4, 2


@pytest.fixture(params=[32, 72, 80])
def layer(request):
    # Not at the top: importing vLLM takes seconds.
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.attention.mm_encoder_attention import MMEncoderAttention

    from core_backend.layers import register_layers

    register_layers()
    with set_current_vllm_config(VllmConfig()):
        return MMEncoderAttention(HEADS, request.param, num_kv_heads=KV_HEADS)


def expected(query, key, value):
    """query [length, HEADS, head_size]: every token sees all."""
    query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, enable_gqa=True).transpose(0, 1)


def inputs(layer, batch_size, length):
    torch.manual_seed(0)
    return [torch.randn(batch_size, length, heads, layer.head_size) for heads in (HEADS, KV_HEADS, KV_HEADS)]


def test_vllm_builds_our_encoder_attention(layer):
    from core_backend.attention.encoder import AscendEncoderAttention

    assert type(layer) is AscendEncoderAttention


def test_without_lengths_every_row_of_the_batch_is_a_sequence(layer):
    query, key, value = inputs(layer, 3, 7)
    attended = layer(query, key, value)
    for i in range(3):
        torch.testing.assert_close(attended[i], expected(query[i], key[i], value[i]))


def test_with_lengths_the_windows_of_a_packed_batch_are_sequences(layer):
    query, key, value = inputs(layer, 1, 12)
    starts = layer.maybe_recompute_cu_seqlens(None, np.array([0, 5, 6, 12]), 0, 1, query.device)
    attended = layer(query, key, value, starts)
    for rows in (slice(0, 5), slice(5, 6), slice(6, 12)):
        torch.testing.assert_close(attended[0, rows], expected(query[0, rows], key[0, rows], value[0, rows]))


def test_heads_may_be_laid_side_by_side(layer):
    tensors = inputs(layer, 2, 5)
    flat = layer(*(x.flatten(2) for x in tensors))
    assert flat.shape == (2, 5, HEADS * layer.head_size)
    torch.testing.assert_close(flat, layer(*tensors).flatten(2))


def test_attention_to_other_tokens_than_ones_own_is_refused(layer):
    query, key, value = inputs(layer, 1, 4)
    with pytest.raises(NotImplementedError, match="4 queries attend to 3 keys"):
        layer(query, key[:, :3], value[:, :3])
