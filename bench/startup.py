"""What importing costs a user, against importing LangChain itself."""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import langchain_core.language_models.chat_models": ["-c", "import langchain_core.language_models.chat_models"],
    "import langchain_ascend": ["-c", "import langchain_ascend"],
    "ascend-adapters --help": ["-m", "ascend_adapters.cli", "--help"],
}


def startup_seconds(num_rounds: int) -> dict[str, float]:
    """The median seconds of a fresh interpreter for each command, run in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(num_rounds + 1):
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}
