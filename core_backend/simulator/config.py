"""Which device is simulated, from the environment."""

import os
from dataclasses import dataclass

# Name -> CANN's name of the chip, which torch_npu maps to its SoC numbers.
CHIPS = {"910B3": "Ascend910B3", "910_9391": "Ascend910_9391", "310P3": "Ascend310P3"}


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """What `ASCEND_SIMULATE*` ask for. The C stand-in reads the numbers from the environment itself."""

    chip: str
    takes_float32: bool = False  # for tests that compare tokens: the device's attention takes fp16 and bf16 only
    num_devices: int = 1
    memory_gb: int = 8  # per device

    def __post_init__(self) -> None:
        if self.chip not in CHIPS:
            raise ValueError(f"ASCEND_SIMULATE={self.chip!r} is not a chip that is simulated: {', '.join(CHIPS)} are.")
        for name in ("num_devices", "memory_gb"):
            if getattr(self, name) < 1:
                raise ValueError(f"{VARIABLES[name]}={getattr(self, name)} must be at least 1.")

    @property
    def soc_name(self) -> str:
        """What CANN would call the chip."""
        return CHIPS[self.chip]

    @classmethod
    def from_environment(cls) -> "SimulatorConfig":
        """Raises ValueError for a chip that is not simulated, or a number that is none."""
        return cls(
            chip=os.environ["ASCEND_SIMULATE"],
            takes_float32=os.environ.get(VARIABLES["takes_float32"], "0") == "1",
            **{name: int(given) for name in ("num_devices", "memory_gb") if (given := _number(name))},
        )

    def put_into_environment(self) -> None:
        """For the stand-in's C code and for child processes."""
        os.environ["ASCEND_SIMULATE_SOC"] = self.soc_name
        os.environ[VARIABLES["num_devices"]] = str(self.num_devices)
        os.environ[VARIABLES["memory_gb"]] = str(self.memory_gb)
        # Queued operators would report a missing emulation somewhere else, and later.
        os.environ["TASK_QUEUE_ENABLE"] = "0"


VARIABLES = {
    "takes_float32": "ASCEND_SIMULATE_FLOAT32",
    "num_devices": "ASCEND_SIMULATE_DEVICES",
    "memory_gb": "ASCEND_SIMULATE_MEMORY_GB",
}


def _number(name: str) -> str:
    given = os.environ.get(VARIABLES[name], "")
    if given and not given.isdigit():
        raise ValueError(f"{VARIABLES[name]}={given!r} is not a whole number.")
    return given
