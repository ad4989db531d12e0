"""The torch_npu operators that core_backend calls, as the documents describe them.

One CPU kernel each, under the wheel's own schema, which refuses what the documents do not allow.
"""

from collections.abc import Callable
from importlib import import_module

from core_backend.simulator.config import SimulatorConfig

MODULES = (
    "activation",
    "atb_attention",
    "fused_attention",
    "fusion_attention",
    "kv_cache",
    "layout",
    "moe",
    "moe_distribute",
    "norm",
    "quantization",
    "rotary",
    "sampling",
)


def register(
    config: SimulatorConfig,
    set_host_argument: Callable[[str, str], None],
    set_nz_argument: Callable[[str, str], None],
) -> None:
    """Install all emulations, with the rules of the simulated chip."""
    from core_backend.simulator.emulation import registry

    registry.choose_chip(config)
    for module in MODULES:
        import_module(f"{__name__}.{module}")
    registry.install(set_host_argument, set_nz_argument)
