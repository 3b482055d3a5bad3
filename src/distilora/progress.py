"""Shows the progress of a long step on stderr: a bar on a terminal, elsewhere a plain line every ten seconds."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Self, TextIO, TypeVar

LINE_EVERY_S = 10.0
BAR_EVERY_S = 0.1
_quiet = False
T = TypeVar("T")


def quiet(on: bool = True) -> None:
    """Turn progress off (or on again), for the whole process."""
    global _quiet
    _quiet = on


def is_quiet() -> bool:
    """Tell whether progress is off."""
    return _quiet


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line on stderr, unless progress is off."""
    if not _quiet:
        print(text, file=stream or sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a warning on stderr even if progress is off, for answers that may mislead."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


@cache
def say_once(text: str) -> None:
    """Print a line at most once per process, for files that are read several times."""
    say(text)


def plural(count: int, noun: str) -> str:
    """Write a number with its noun: 1 text, 2,000 texts."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Progress:
    """Progress bar: `with Progress("training", total, "examples") as bar: bar.add(32, loss=0.4)`.

    `total` is None if unknown; then no ETA is shown. `initial` items were processed before and do not count towards the rate.
    With an empty label nothing is shown.
    """

    def __init__(self, label: str, total: int | None, unit: str = "examples", initial: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.count = self.initial = initial
        self.notes: dict[str, str] = {}
        self.start = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if _quiet or not self.label:
            return
        if self.terminal or time.monotonic() - self.start > 1.0:
            self._show(final=failure[0] is None)
        if self.terminal:
            sys.stderr.write("\n")

    def add(self, count: int, **notes: float) -> None:
        """Advance by `count`; show notes such as `loss=0.3` beside the rate."""
        self.count += count
        self.notes.update({name: f"{value:.4g}" for name, value in notes.items()})
        if (
            self.label
            and not _quiet
            and time.monotonic() - self.shown >= (BAR_EVERY_S if self.terminal else LINE_EVERY_S)
        ):
            self._show()

    def line(self) -> str:
        """Format the line: label, count, rate, notes, time left."""
        elapsed = time.monotonic() - self.start
        rate = (self.count - self.initial) / max(elapsed, 1e-9)
        parts = [f"{self.count:,}" + (f"/{self.total:,}" if self.total is not None else "") + f" {self.unit}"]
        parts.append(f"{rate:,.1f} {self.unit}/s")
        parts += [f"{name} {value}" for name, value in self.notes.items()]
        if self.total is not None and self.count < self.total and rate > 0:
            parts.append(f"ETA {_clock((self.total - self.count) / rate)}")
        else:
            parts.append(_clock(elapsed))
        return f"{self.label}: " + ", ".join(parts)

    def _show(self, final: bool = False) -> None:
        self.shown = time.monotonic()
        if not self.terminal:
            print(self.line(), file=sys.stderr, flush=True)
            return
        share = 1.0 if self.total == 0 else min(self.count / self.total, 1.0) if self.total else float(final)
        bar = "█" * round(20 * share) + "·" * (20 - round(20 * share))
        sys.stderr.write(f"\r\x1b[K{bar} {self.line()}")
        sys.stderr.flush()


def track(items: Sequence[T] | Iterable[T], label: str, unit: str = "examples") -> Iterator[T]:
    """Yield the items while showing progress."""
    total = len(items) if isinstance(items, Sequence) else None
    with Progress(label, total, unit) as bar:
        for item in items:
            yield item
            bar.add(1)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
