"""Runs the cells that are missing and writes results/serving.{json,md,png}. Help: --help."""

import json
import os
import resource
import time
from collections.abc import Callable
from functools import partial

from bench.harness.claims import RESULTS, run_cells
from bench.serving import CONTENDERS, Row, compute
from bench.serving import __doc__ as about
from bench.serving.measures import load_round, mixed, one_round, search
from bench.serving.model import WORK, make_model
from bench.serving.report import draw, tables
from bench.serving.survival import fuzz, lost, schemathesis, soak

CELLS = RESULTS / "serving" / "cells"
COMMAND, ROUNDS, CORES = "make bench-serving", 3, 2


def costed(run: Callable[[], Row]) -> Row:
    """Return a cell's row with its wall seconds, and the CPU seconds of this process and its children."""
    started, used = time.monotonic(), cpu_seconds()
    row = run()
    return {**row, "wall_s": time.monotonic() - started, "cpu_s": cpu_seconds() - used}


def cpu_seconds() -> float:
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in own)


def round_cell(number: int, name: str) -> Row:
    """A contender's round, with the settings that the cell `search` found."""
    best = json.loads((CELLS / "search.json").read_text("utf-8"))["best"]
    return one_round(number, name, best)


def cells() -> dict[str, Callable[[], Row]]:
    """The cells, in the order of measurement: rounds go through the contenders, so that a drift of the machine hits all."""
    measured: dict[str, Callable[[], Row]] = {"model": make_model, "search": search}
    measured |= {f"round-{n}-{name}": partial(round_cell, n, name) for n in range(1, ROUNDS + 1) for name in CONTENDERS}
    measured |= {f"load-{n}": partial(load_round, n) for n in range(1, ROUNDS + 1)}
    measured |= {"lost": lost, "fuzz": fuzz, "schemathesis": schemathesis, "soak": soak, "mixed": mixed}
    return {name: partial(costed, run) for name, run in measured.items()}


def forget_outdated() -> None:
    """Remove the cells of what was missing and is there now, the search that left it out, and a model that is gone from WORK."""
    rows = {path: json.loads(path.read_text("utf-8")) for path in CELLS.glob("*.json")}
    for path, row in rows.items():
        if os.environ.get(row.get("wants", "")):
            path.unlink()
            if path.stem.startswith("round-"):
                (CELLS / "search.json").unlink(missing_ok=True)
    if not (WORK / "reviews.jsonl").is_file():
        (CELLS / "model.json").unlink(missing_ok=True)


def main() -> None:
    """Run the cells on two cores, then write the tables and the picture."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    forget_outdated()
    run_cells("serving", cells(), compute, COMMAND, about or "")
    path = RESULTS / "serving.json"
    if path.exists():
        rows = json.loads(path.read_text("utf-8"))["rows"]
        (RESULTS / "serving.md").write_text(tables(rows), "utf-8")
        draw(rows, RESULTS / "serving.png")


if __name__ == "__main__":
    main()
