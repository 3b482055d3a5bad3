"""Times the stages of a run."""

import time
from typing import Any


class Clock:
    """Stopwatch for the seconds of each stage."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.cpu = time.process_time()
        self.stages: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """Record the seconds since the last mark as those of a stage."""
        now = time.monotonic()
        self.stages[stage] = round(now - self.last, 2)
        self.last = now

    def costs(self) -> dict[str, Any]:
        """Return the seconds of wall and CPU so far, and of each stage."""
        return {
            "wall_s": round(time.monotonic() - self.start, 2),
            "cpu_s": round(time.process_time() - self.cpu, 2),
            "stages_s": self.stages,
        }
