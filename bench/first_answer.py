"""Bench of the first answer: seconds from the start of `distilora predict RUN TEXT` to its line, RUN a saved run, not an export.

One cell: a run of the first recipe on few reviews is trained (its size is what counts here, not its accuracy), one call reads
the files into the system's cache, and CALLS more are timed, one after the other. A plain `import torch` is timed in turns with
them, for it is most of what is left.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness.claims import ROOT, Rows, run_cells, timed

CALLS = 11
TEXT = "A slow start, but the last hour is superb."
FEW = ["--data.train_size", "64", "--data.validation_size", "40", "--data.heldout", "0.01", "--data.max_length", "64",
       "--training.tracker", "none"]  # fmt: skip


def compute(rows: Rows) -> Rows:
    """Claims from rows: medians, spread from least to most."""
    (row,) = rows

    def claim(name: str, values: list[float], unit: str, goal: str) -> dict[str, Any]:
        return {"name": name, "value": statistics.median(values), "unit": unit, "goal": goal,
                "spread": [min(values), max(values)], "n": len(values)}  # fmt: skip

    return [
        claim("first_answer_s", row["seconds"], "s from process start, of a saved run, files in memory", "<= 2.5"),
        claim("import_torch_s", row["import_torch_s"], "s of a process that imports torch and ends", "none"),
    ]


def first_line(words: list[str]) -> float:
    """Seconds from the start of the process to its first line."""
    started = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.monotonic() - started
    assert process.returncode == 0, words
    assert line.strip(), words
    return seconds


def answers() -> dict[str, Any]:
    distilora = str(Path(sys.executable).parent / "distilora")
    with tempfile.TemporaryDirectory() as place:
        run = str(Path(place) / "run")
        recipe = str(ROOT / "bench" / "encoder.yaml")
        wall, cpu, _ = timed([distilora, "train", recipe, "--output", run, *FEW])
        first_line([distilora, "predict", run, TEXT])
        seconds, imports = [], []
        for _ in range(CALLS):
            seconds.append(first_line([distilora, "predict", run, TEXT]))
            imports.append(timed([sys.executable, "-c", "import torch"])[0])
    return {"seconds": seconds, "import_torch_s": imports, "wall_s": wall + sum(seconds) + sum(imports), "cpu_s": cpu}


if __name__ == "__main__":
    run_cells("first_answer", {"answers": answers}, compute, "make bench-first-answer", __doc__)
