"""The scheduler of pooling models, which generate nothing."""

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler


class PoolingScheduler(Scheduler):
    """Lets a text that fills the whole context finish.

    vLLM 0.23 keeps one place for a generated token when it goes on with a text that it computes in chunks: the last
    token of a text of max_model_len tokens is never computed, and its request never answered.
    Upstream: https://github.com/vllm-project/vllm/pull/48039.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Only the limit of a step: the KV cache has been laid out already.
        self.max_model_len += 1
