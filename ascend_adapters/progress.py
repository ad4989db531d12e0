"""Progress of long steps, on standard error: what is being done, and what the seconds went to."""

import sys
import time


class Progress:
    """One line per step; on a terminal, its seconds count up. The last line sums them up."""

    def __init__(self, subject: str, *, quiet: bool = False) -> None:
        self._subject = subject
        self._quiet = quiet
        self._steps: dict[str, float] = {}  # text -> when it began

    def step(self, text: str) -> None:
        """A new step, or the running one again to count its seconds up."""
        now = time.monotonic()
        if text not in self._steps:
            self._end_line(now)
            self._steps[text] = now
            self._write(f"{self._subject}: {text} ...", end="" if sys.stderr.isatty() else "\n")
        elif sys.stderr.isatty():
            self._write(f"\r{self._subject}: {text} ... {now - self._steps[text]:.0f} s", end="")

    def done(self, text: str) -> float:
        """The last line: what came of it, the seconds, and each step's share of them. Returns the seconds."""
        now = time.monotonic()
        self._end_line(now)
        begins = [*self._steps.values(), now]
        shares = [
            f"{name} {end - begin:.1f}" for name, begin, end in zip(self._steps, begins, begins[1:], strict=False)
        ]
        self._write(f"{self._subject}: {text} ({now - begins[0]:.1f} s: {', '.join(shares)})")
        self._steps = {}
        return now - begins[0]

    def _end_line(self, now: float) -> None:
        if self._steps and sys.stderr.isatty():
            text, begin = list(self._steps.items())[-1]
            self._write(f"\r{self._subject}: {text} ... {now - begin:.1f} s")

    def _write(self, text: str, end: str = "\n") -> None:
        if not self._quiet:
            print(text, end=end, file=sys.stderr, flush=True)
