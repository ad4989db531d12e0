import pytest

from core_backend.worker.npu_memory import GIB, DeviceMemory, kv_cache_bytes


def test_the_kv_cache_gets_what_the_largest_step_leaves():
    assert kv_cache_bytes(requested=60 * GIB, peak_allocated=20 * GIB, outside_torch=GIB) == 39 * GIB


def test_a_share_that_is_not_free_is_refused_with_one_that_is():
    card = DeviceMemory(free=30 * GIB, total=64 * GIB)
    assert card.requested(0.4) == int(0.4 * 64 * GIB)
    with pytest.raises(
        ValueError, match=r"57\.60 GiB of the NPU's 64\.00 GiB, but only 30\.00 GiB are free.*to 0\.45 or"
    ):
        card.requested(0.9)


def test_a_model_that_leaves_nothing_is_refused_with_the_numbers():
    with pytest.raises(
        ValueError, match=r"of 10\.00 GiB for this engine.*take 9\.00 GiB and the runtime 2\.00 GiB.*Raise"
    ):
        kv_cache_bytes(requested=10 * GIB, peak_allocated=9 * GIB, outside_torch=2 * GIB)
