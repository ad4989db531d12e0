"""Importing vLLM for an engine: what of it is imported, what is left out, and what that does to the environment."""

import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# What serving a model uses, whichever it is. `vllm.entrypoints.cli.main` would import the other commands too.
MODULES = (
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.core",
    "vllm.v1.worker.gpu_worker",
)
# Packages that importing vLLM brings in and serving a model does not use, each with who asks for it. They stay
# installed. A test serves every kind of model and looks that nobody has loaded them.
#   LEFT_OUT  whoever asks is told that it is not installed, but only while vLLM is imported
#   LATER     it is loaded when something of it is used (importlib.util.LazyLoader)
LEFT_OUT = {
    "sklearn": "transformers.generation.candidate_generator takes roc_curve from it, for assisted generation in "
    "transformers' own generate(); it brings scipy.stats and pandas along",
}
LATER = {"pandas": "vllm._aiter_ops reads tuning tables of AMD's GPUs with it; its pyarrow starts a thread"}


@dataclass(frozen=True)
class Imported:
    """What importing vLLM came to."""

    failure: str | None = None  # why it cannot be imported
    why_not_fork: str | None = None  # why this process cannot be forked now
    added: Mapping[str, str] = field(default_factory=dict)  # variables that the libraries have set
    changed: Mapping[str, str] = field(default_factory=dict)  # those that were set before

    def take_environment(self, environment: Mapping[str, str]) -> None:
        """Make `environment` this process's. What the libraries have set while they were imported stays set."""
        os.environ.clear()
        os.environ.update({**self.added, **environment, **self.changed})


@cache
def import_vllm() -> Imported:
    """Import what an engine needs; later calls, in forks too, return what the first did.

    It does not raise: a failure is part of the result.
    """
    before = dict(os.environ)
    try:
        # Nearly nothing of what is imported becomes garbage, and looking for it takes a fifth of the time.
        with _without_collecting(), _without(LEFT_OUT), _later(LATER):
            for module in MODULES:
                importlib.import_module(module)
            _import_worker()
    except Exception as error:
        return Imported(failure=_why_not_importable(error))
    threads = len(os.listdir("/proc/self/task")) - 1
    return Imported(
        why_not_fork=f"importing vLLM has started {threads} threads here, which a fork would lose" if threads else None,
        added={name: value for name, value in os.environ.items() if name not in before},
        changed={name: value for name, value in os.environ.items() if before.get(name, value) != value},
    )


def _import_worker() -> None:
    """The platform's worker; vLLM knows it by name."""
    from vllm.platforms import current_platform

    module, _, _ = str(getattr(current_platform, "worker_cls", "")).rpartition(".")
    if module:
        importlib.import_module(module)


@contextmanager
def _without_collecting() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _without(packages: Mapping[str, str]) -> Iterator[None]:
    """As if `packages` were not installed. Source: the Python language reference, 5.3.1, The module cache."""
    absent = [name for name in packages if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextmanager
def _later(packages: Mapping[str, str]) -> Iterator[None]:
    finder = _LazyFinder(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _LazyFinder:
    """Finds `packages` as Python does, and has them loaded on first use."""

    def __init__(self, packages: Mapping[str, str]) -> None:
        self._packages = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib.abc.MetaPathFinder."""
        if name not in self._packages:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


def _why_not_importable(error: Exception) -> str:
    """The faults of this machine, if the doctor finds any: where CANN is missing, importing torch fails."""
    from ascend_adapters.doctor import examine, faults

    found = faults(examine())
    reason = f"vLLM cannot be imported: {error}"
    return f"this machine is not ready: {found} ({reason})" if found else reason
