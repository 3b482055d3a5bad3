"""Claims: each a function of a bench's raw rows, so that anyone can compute it again.

`results/NAME.json` is {"rows": [...], "claims": [...]}; `bench/NAME.py` has `compute(rows)`, giving for each claim its
value, unit, goal, spread and n. `bench/check.py` computes all of them again.
"""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
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
    """The checkout's commit, with '+' if tracked files were changed since."""
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


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
