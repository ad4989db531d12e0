"""Progress of long steps, on standard error: what is being done, and for how long."""

import sys
import time


class Progress:
    """One line per step; on a terminal, its seconds count up."""

    def __init__(self, subject: str, *, quiet: bool = False) -> None:
        self._subject = subject
        self._quiet = quiet
        self._step: str | None = None
        self._started = time.monotonic()
        self._step_started = self._started

    def step(self, text: str) -> None:
        """A new step, or the running one again to count its seconds up."""
        now = time.monotonic()
        if text != self._step:
            self._end_step(now)
            self._step, self._step_started = text, now
            self._write(f"{self._subject}: {text} ...", end="" if sys.stderr.isatty() else "\n")
        elif sys.stderr.isatty():
            self._write(f"\r{self._subject}: {text} ... {now - self._step_started:.0f} s", end="")

    def done(self, text: str) -> None:
        """The last line: what came of it, and the seconds of all steps together."""
        now = time.monotonic()
        self._end_step(now)
        self._step = None
        self._write(f"{self._subject}: {text} ({now - self._started:.1f} s)")

    def _end_step(self, now: float) -> None:
        if self._step is not None and sys.stderr.isatty():
            self._write(f"\r{self._subject}: {self._step} ... {now - self._step_started:.1f} s")

    def _write(self, text: str, end: str = "\n") -> None:
        if not self._quiet:
            print(text, end=end, file=sys.stderr, flush=True)
