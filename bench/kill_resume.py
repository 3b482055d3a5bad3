"""Bench of exact continuation: 20 runs on real reviews, each SIGKILLed once, resumed, and compared with one nobody touched.

    alone      the recipe on 240 reviews, two epochs, frozen blocks read from the prefix cache; what it ends with, and how
               often and how long it was in each phase
    kill-NN    the same run, killed at a moment drawn from the seed NN, gone on with by --resume to its end; the adapter must
               have the bytes of `alone`, and the metrics its values

A fifth of the kills each is aimed at the filling of the cache, a step, a validation, the writing of a checkpoint and the
saving of the model: the entry is drawn from as many as `alone` had, and the moment from how long that one lasted. Where the
process really was when it died, and whether the cache lay in its folder then, is recorded.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from bench.harness.claims import RESULTS, ROOT, Rows, run_cells

KILLS = 20
PHASES = ("cache", "step", "validation", "checkpoint", "saving")
EVERY = 62  # of the recipe's reviews one in so many is read: 403
REVIEWS = Path(tempfile.gettempdir()) / "distilora-bench-kill-resume.csv"
FEWER = ["--data.path", str(REVIEWS), "--data.train_size", "240", "--data.validation_size", "48", "--data.max_length", "128",
         "--training.epochs", "2", "--training.validations", "4", "--training.checkpoint_every", "5",
         "--evaluation.bootstrap", "100", "--training.threads", "1"]  # fmt: skip
CLOCKS = ("seconds", "updating_seconds", "examples_per_s")  # what is not the same twice


def compute(rows: Rows) -> Rows:
    """Claims from rows: kills survived, and those in runs that ended as the one without any did; n counts runs compared."""
    (alone,) = (row for row in rows if "kills" not in row)
    chains = [row for row in rows if "kills" in row]
    same = [row for row in chains if all(row[key] == alone[key] for key in ("adapter_sha256", "metrics_sha256"))]

    def claim(name: str, counted: Rows) -> dict[str, Any]:
        count = sum(len(row["kills"]) for row in counted)
        return {"name": name, "value": count, "unit": "SIGKILLs", "goal": f">= {KILLS}", "spread": [count, count],
                "n": len(counted)}  # fmt: skip

    return [claim("kills", chains), claim("identical", same)]


def ended(folder: Path) -> dict[str, str]:
    """What must be equal at the end: the adapter's bytes, and the metrics but for what the clock says."""
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    training = {k: v for k, v in metrics["training"].items() if k not in CLOCKS}
    assert training["prefix_cache"]["bytes"], training["prefix_cache"]
    compared = [metrics["evaluations"], training, metrics["data"], metrics["round_trip"]]
    adapter = (folder / "model" / "adapter" / "adapter_model.safetensors").read_bytes()
    return {
        "adapter_sha256": hashlib.sha256(adapter).hexdigest(),
        "metrics_sha256": hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest(),
    }


def live(words: list[str], die: dict[str, Any] | None, log: Path) -> int:
    """One life of the run, in a process of its own: its exit code, -9 if it was killed."""
    command = [
        sys.executable,
        "-m",
        "bench.kill_resume",
        "--life",
        json.dumps({"words": words, "die": die, "log": str(log)}),
    ]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode


def started(folder: Path) -> list[str]:
    if not REVIEWS.exists():
        from distilora.data.sources import open_source
        from distilora.files.tables import write_table

        write_table(
            REVIEWS,
            [r.values for r in islice(open_source("embedded").records("train", "data.train_split"), 0, None, EVERY)],
        )
    return ["train", "bench/encoder.yaml", "--output", str(folder), *FEWER]


def alone() -> dict[str, Any]:
    """The run nobody touches."""
    before, cpu = time.monotonic(), os.times().children_user
    with tempfile.TemporaryDirectory() as place:
        folder, log = Path(place) / "run", Path(place) / "log"
        code = live(started(folder), None, log)
        assert code == 0, code
        row = {**ended(folder), "lasted_s": json.loads(log.read_text("utf-8"))["lasted_s"]}
    return {**row, "wall_s": time.monotonic() - before, "cpu_s": os.times().children_user - cpu}


def kill(seed: int) -> dict[str, Any]:
    """A run killed once and gone on with."""
    rng, phase = random.Random(seed), PHASES[seed % len(PHASES)]
    lasted = json.loads((RESULTS / "kill_resume" / "cells" / "alone.json").read_text("utf-8"))["lasted_s"][phase]
    entry = rng.randint(1, len(lasted))
    die = {"phase": phase, "entry": entry, "after_s": rng.random() * lasted[entry - 1]}
    before, cpu = time.monotonic(), os.times().children_user
    with tempfile.TemporaryDirectory() as place:
        folder, log = Path(place) / "run", Path(place) / "log"
        code = live(started(folder), die, log)
        assert code == -signal.SIGKILL, (code, die)
        left = sorted(path.name for path in folder.glob("**/*.tmp"))
        cache = sorted(path.name for path in folder.glob("cache/*"))
        died = {**die, **json.loads(log.read_text("utf-8")), "left": left, "cache": cache}
        code = live(["train", "--resume", str(folder)], None, log)
        assert code == 0, (code, died)
        assert not (folder / "cache").exists()
        row = {**ended(folder), "seed": seed, "kills": [died]}
    return {**row, "wall_s": time.monotonic() - before, "cpu_s": os.times().children_user - cpu}


def life(words: list[str], die: dict[str, Any] | None, log: str) -> int:
    """In the process to be killed: the command, with the phases it goes through noted and the timer set."""
    from distilora.cli import main as cli
    from distilora.runs import run
    from distilora.training import loop as fit
    from distilora.training.prefix_cache import PrefixCache

    now = {"in": "between", "updates": 0}
    lasted: dict[str, list[float]] = {phase: [] for phase in PHASES}
    entered = dict.fromkeys(PHASES, 0)

    def kill_it() -> None:
        Path(log).write_text(json.dumps(now), "utf-8")
        os.kill(os.getpid(), signal.SIGKILL)

    def noted(phase: str, does: Callable[..., Any]) -> Callable[..., Any]:
        def doing(*args: Any, **settings: Any) -> Any:
            before, now["in"] = now["in"], phase
            entered[phase] += 1
            if die and (die["phase"], die["entry"]) == (phase, entered[phase]):
                threading.Timer(die["after_s"], kill_it).start()
            begun = time.monotonic()
            try:
                return does(*args, **settings)
            finally:
                lasted[phase].append(round(time.monotonic() - begun, 4))
                now["in"] = before
                now["updates"] += phase == "step"

        return doing

    for phase, owner, name in (
        ("cache", PrefixCache, "fill"), ("step", fit, "make_update"), ("validation", fit, "validate"),
        ("checkpoint", fit, "save_checkpoint"), ("saving", run, "write_model"),
    ):  # fmt: skip
        setattr(owner, name, noted(phase, getattr(owner, name)))
    code = cli.main(words)
    Path(log).write_text(json.dumps({"lasted_s": lasted}), "utf-8")
    return code


if __name__ == "__main__":
    if sys.argv[1:2] == ["--life"]:
        sys.exit(life(**json.loads(sys.argv[2])))
    cells = {"alone": alone} | {f"kill-{seed:02}": partial(kill, seed) for seed in range(1, KILLS + 1)}
    run_cells("kill_resume", cells, compute, "make bench-kill-resume", __doc__)
