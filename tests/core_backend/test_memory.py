import pytest
import torch
from safetensors.torch import save_file

from core_backend.worker.memory import (
    GIB,
    available_bytes,
    check_weights_fit,
    kv_cache_bytes,
    process_bytes,
    share_for_kv_cache,
    total_bytes,
    weight_bytes,
)


def test_the_default_is_1_gib_or_two_requests_but_at_most_half_of_what_is_usable():
    assert kv_cache_bytes(20 * GIB, None, request_bytes=GIB // 8) == GIB
    assert kv_cache_bytes(20 * GIB, None, request_bytes=3 * GIB) == 6 * GIB
    assert kv_cache_bytes(3 * GIB // 2, None, request_bytes=3 * GIB) == GIB // 2


def test_what_was_asked_for_is_taken_if_it_fits():
    assert kv_cache_bytes(20 * GIB, 7 * GIB, request_bytes=GIB) == 7 * GIB


@pytest.mark.parametrize(("available", "requested"), [(2 * GIB, 3 * GIB), (GIB // 4, None)])
def test_what_does_not_fit_is_refused_with_the_numbers_and_the_remedy(available, requested):
    with pytest.raises(ValueError, match=r"GiB wanted, .* GiB free .*Lower kv_cache_memory_bytes"):
        kv_cache_bytes(available, requested, request_bytes=GIB)


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded(tmp_path):
    save_file({"a": torch.zeros(100, 5, dtype=torch.bfloat16)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(250), "mask": torch.ones(7, dtype=torch.bool)}, tmp_path / "model-2.safetensors")
    (tmp_path / "tokenizer.json").write_bytes(bytes(700))
    assert weight_bytes(tmp_path, itemsize=4) == 4 * 750 + 7
    assert weight_bytes(tmp_path, itemsize=2) == 2 * 750 + 7
    check_weights_fit(GIB, 2 * GIB)
    with pytest.raises(ValueError, match=r"3\.00 GiB needed, 1\.50 GiB free .*Close another engine"):
        check_weights_fit(3 * GIB, 2 * GIB)


def test_int8_weights_stay_so_and_packed_ones_become_floats(tmp_path):
    tensors = {"weight": torch.zeros(10, dtype=torch.int8), "qweight": torch.zeros(3, dtype=torch.int32)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert weight_bytes(tmp_path, itemsize=2) == 10 + 3 * 4
    assert weight_bytes(tmp_path, itemsize=2, packed_bits=4) == 10 + 3 * 8 * 2


def test_a_share_of_the_machine_is_less_what_the_engine_uses_already():
    assert share_for_kv_cache(0.5, total=8 * GIB, used=GIB) == 3 * GIB
    with pytest.raises(ValueError, match=r"gpu_memory_utilization=0\.1 of 8\.00 GiB is less than the 1\.00 GiB"):
        share_for_kv_cache(0.1, total=8 * GIB, used=GIB)


def test_the_readings_of_this_machine_agree_with_each_other():
    assert 0 < process_bytes() < total_bytes()
    assert 0 < available_bytes() < total_bytes()
