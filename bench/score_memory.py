"""Bench of `distilora score`'s memory: its peak by the number of rows, which should not matter.

Cells, each in a process of its own, on csv files in which every row is another short text, into shards as by default:

    rows-N    N rows scored with a tiny model, which is trained first. Its own weights and activations are next to
              nothing, so that what is seen is what scoring itself holds. The peak is that of RssAnon, the memory
              that a process has for itself, read twenty times a second; files that are mapped do not count. Linux only.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench.harness.claims import ROOT, Rows, run_cells

ROWS = (10_000, 200_000, 1_000_000)
EVERY_S = 0.05


def compute(rows: Rows) -> Rows:
    """Claims from rows. The spread of the growth is that of all larger tables over the smallest, that of the peak is of all."""
    by_size = sorted((row for row in rows if row["cell"].startswith("rows-")), key=lambda row: row["rows"])
    peaks = [row["peak_mb"] for row in by_size]
    growths = [peak / peaks[0] for peak in peaks[1:]]
    fewest, most = by_size[0]["rows"], by_size[-1]["rows"]
    return [
        {"name": "memory_growth", "value": growths[-1], "unit": f"peak at {most:,} rows / peak at {fewest:,} rows",
         "goal": "<= 1.05", "spread": [min(growths), max(growths)], "n": len(growths)},
        {"name": "peak_mb", "value": peaks[-1], "unit": f"MB of anonymous memory at {most:,} rows",
         "goal": "none", "spread": [min(peaks), max(peaks)], "n": len(peaks)},
    ]  # fmt: skip


def texts(count: int) -> Iterator[str]:
    """As many different texts."""
    return (f"a {'superb' if i % 2 else 'dull'} film {i}" for i in range(count))


@cache
def tiny_run() -> tempfile.TemporaryDirectory[str]:
    """A finished run of the tests' tiny model in run/, with its encoder beside it; removed when this process ends."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.tiny import tiny_config, tiny_reviews, write_csv, write_tiny_encoder

    from distilora.runs.run import train

    place = tempfile.TemporaryDirectory()
    folder = Path(place.name)
    reviews = write_csv(folder / "reviews.csv", tiny_reviews(300))
    train(tiny_config(folder / "run", reviews, write_tiny_encoder(folder / "encoder")))
    return place


def measure(count: int) -> dict[str, Any]:
    """Scores `count` rows in a process of its own."""
    run = Path(tiny_run().name) / "run"
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "in.csv"
        with open(source, "w", encoding="utf-8") as stream:
            stream.write("text\n")
            stream.writelines(text + "\n" for text in texts(count))
        words = ["--quiet", "score", str(run), str(source), "--output", str(Path(place) / "out"), "--device", "cpu",
                 "--precision", "fp32"]  # fmt: skip
        before, started, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0.0
        child = subprocess.Popen([sys.executable, "-m", "distilora", *words], stdout=subprocess.DEVNULL)
        while child.poll() is None:
            peak = max(peak, anonymous_mb(child.pid))
            time.sleep(EVERY_S)
        wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, words)
    return {
        "rows": count,
        "peak_mb": peak,
        "rows_per_s": count / wall,
        "wall_s": wall,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def anonymous_mb(process: int) -> float:
    """Memory of a process that no file backs, MB (10^6 bytes); 0 once it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text("utf-8")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("RssAnon")), 0.0)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"  # the tiny encoder lies on this disk
    cells = {f"rows-{count}": partial(measure, count) for count in ROWS}
    run_cells("score_memory", cells, compute, "make bench-score-memory", __doc__)
