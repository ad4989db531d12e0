"""How much of an NPU's memory becomes KV cache."""

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What the device had before the model was loaded. Bytes."""

    free: int
    total: int

    def requested(self, utilization: float) -> int:
        """The share of the device that this engine may take.

        Raises ValueError if less than that is free.
        """
        wanted = int(self.total * utilization)
        if wanted > self.free:
            raise ValueError(
                f"gpu_memory_utilization={utilization} asks for {_gib(wanted)} of the NPU's {_gib(self.total)}, but "
                f"only {_gib(self.free)} are free: close what else runs there (`npu-smi info`), set "
                f"gpu_memory_utilization to {self._largest_share():.2f} or less, or choose another device "
                "(ASCEND_RT_VISIBLE_DEVICES)."
            )
        return wanted

    def _largest_share(self) -> float:
        """In whole hundredths, with a little left for others."""
        return int(self.free / self.total * 98) / 100


def kv_cache_bytes(requested: int, peak_allocated: int, outside_torch: int) -> int:
    """What is left for the KV cache.

    requested       what this engine may take
    peak_allocated  weights and activations of the largest step
    outside_torch   what the runtime and the collectives took since the start
    Raises ValueError if nothing is left.
    """
    left = requested - peak_allocated - outside_torch
    if left <= 0:
        raise ValueError(
            f"no memory is left for the KV cache: of {_gib(requested)} for this engine, weights and activations take "
            f"{_gib(peak_allocated)} and the runtime {_gib(outside_torch)}. Raise gpu_memory_utilization, lower "
            "max_num_batched_tokens or max_model_len, or spread the model over more devices (tensor_parallel_size)."
        )
    return left


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB"
