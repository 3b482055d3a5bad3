"""Claims: each a function of a bench's raw rows, so that anyone can compute it again.

`results/NAME.json` is {"rows": [...], "claims": [...]}; `bench.NAME` has `compute(rows)`, giving for each claim its
value, unit, goal, spread and n. `bench.harness.check` computes all of them again.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
FIELDS = ("name", "value", "unit", "goal", "spread", "n", "command", "machine", "commit", "wall_s", "cpu_s")


def machine() -> str:
    """The machine in a phrase: cores, processor, the flags that matter to speed, memory."""
    flags, memory = "", ""
    try:
        info = Path("/proc/cpuinfo").read_text()
        have = next((line.split(":", 1)[1].split() for line in info.splitlines() if line.startswith("flags")), [])
        flags = " ".join(flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if flag in have)
        memory = f", {round(int(Path('/proc/meminfo').read_text().split()[1]) / 2**20)} GiB"
    except OSError:
        pass
    return f"{os.cpu_count()} cores {platform.machine()} {flags}{memory}".strip()


def commit() -> str:
    """The checkout's commit, with '+' if tracked files other than results were changed since."""
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def timed(command: list[str], **settings: Any) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident MB of a command and its children. Raises CalledProcessError."""
    import resource  # not on Windows, where `make check` works all the same

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, **settings)
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, after.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def run_cells(
    name: str,
    cells: Mapping[str, Callable[[], dict[str, Any]]],
    compute: Callable[[Rows], Rows],
    command: str,
    about: str,
) -> None:
    """Runs the cells that results/NAME/cells/ lacks, each in turn, and writes results/NAME.json when all are there.

    A cell returns its row, wall_s and cpu_s among its fields. Takes --again (measure anew) and --only CELL.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="measure every cell anew")
    parser.add_argument("--only", help="measure this cell alone")
    args = parser.parse_args()
    folder = RESULTS / name / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {cell: folder / f"{cell}.json" for cell in cells}
    for cell, run in cells.items():
        if (paths[cell].exists() and not args.again) or (args.only and args.only != cell):
            continue
        with tempfile.TemporaryDirectory() as kept:
            os.environ["DISTILORA_CACHE"] = kept  # no cell reads what another has kept
            row = {"cell": cell, "machine": machine(), "commit": commit(), "load_before": os.getloadavg()[0], **run()}
        temporary = paths[cell].with_suffix(".tmp")
        temporary.write_text(json.dumps(row, indent=2) + "\n", "utf-8")
        temporary.replace(paths[cell])
    if all(path.exists() for path in paths.values()):
        rows = [json.loads(path.read_text("utf-8")) for path in paths.values()]
        write_results(name, rows, compute(rows), command)


def write_results(name: str, rows: list[dict[str, Any]], computed: list[dict[str, Any]], command: str) -> None:
    """Writes results/NAME.json; where the rows come from and what they cost is taken from the rows."""
    common = {
        "command": command,
        "machine": rows[0]["machine"],
        "commit": ", ".join(sorted({row["commit"] for row in rows})),
        "wall_s": round(sum(row["wall_s"] for row in rows), 1),
        "cpu_s": round(sum(row["cpu_s"] for row in rows), 1),
    }
    claims = [{field: {**claim, **common}[field] for field in FIELDS} for claim in computed]
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"rows": rows, "claims": claims}, indent=2) + "\n", "utf-8")
