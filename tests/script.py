"""Scripts that use vLLM as a library, each in a fork of the launcher, which has imported it.

`run_script("tests.e2e.families", folder)` is `python -m tests.e2e.families folder`, ten seconds sooner.
"""

import gc
import json
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ascend_adapters.config import EngineSettings
from ascend_adapters.engine.launcher import Order, launcher_for
from ascend_adapters.engine.run import run_environment

ROOT = Path(__file__).parents[1]
TIMEOUT = 900.0  # seconds
Row = dict[str, Any]


class Script:
    """A running script. What it prints as lines of JSON is its result."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str | None] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """
        environment  in which vLLM is imported, on top of this process's; None: unset
        variables    that the script finds besides, which importing vLLM does not read
        """
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (environment or {}).items():
                patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
            inherited = run_environment(True, EngineSettings())
        self._folder = Path(tempfile.mkdtemp(prefix="ascend-test-"))
        self._out, self._log = self._folder / "out", self._folder / "log"
        given = [str(self._out), json.dumps(dict(variables or {})), module, *arguments]
        order = Order("tests.script", given, inherited, str(self._folder), str(ROOT))
        launcher, _ = launcher_for(inherited)
        with self._log.open("wb") as log:
            self._process = launcher.launch(order, log.fileno())

    def rows(self) -> list[Row]:
        """Wait for its end. Raises RuntimeError with its log if it failed."""
        try:
            if not self._process.wait(TIMEOUT):
                raise RuntimeError(f"not done after {TIMEOUT:.0f} s:\n{self._log.read_text()[-4000:]}")
            if self._process.returncode != 0:
                raise RuntimeError(f"exit status {self._process.returncode}:\n{self._log.read_text()[-4000:]}")
            return [json.loads(line) for line in self._out.read_text().splitlines() if line.startswith("{")]
        finally:
            self.stop()

    def stop(self) -> None:
        """End it if it runs, and forget what it printed."""
        self._process.terminate(0)
        shutil.rmtree(self._folder, ignore_errors=True)


def run_script(module: str, *arguments: str, environment: Mapping[str, str | None] | None = None) -> list[Row]:
    """What the script prints. Raises RuntimeError if it fails."""
    return Script(module, *arguments, environment=environment).rows()


def main() -> None:
    """In the fork."""
    out, variables, module, *arguments = sys.argv[1:]
    with open(out, "wb") as file:
        os.dup2(file.fileno(), 1)
    # Tiny models: one thread has done its work before two have met.
    os.environ.update({"OMP_NUM_THREADS": "1", **json.loads(variables)})
    import torch

    torch.set_num_threads(1)
    # Where an LLM ends, vLLM unfreezes and collects several times: 0.3 s each, with all that the launcher has imported.
    gc.unfreeze = lambda: None  # type: ignore[assignment]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
