"""Bench of exact continuation: a run on real reviews, SIGKILLed at random moments, resumed each time, against one nobody touched.

Cells: `untouched`, and chains. In a chain a run is killed five times: in a step, in a validation, while a checkpoint
is written, while the model is saved; when and after how many of them is drawn from the chain's seed. Each life kills
itself by a timer set at the entry of what was drawn, so that the moment inside it is random, too; what it was really
in when it died is recorded. At the end the adapter must have the untouched one's bytes, and the metrics its values.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from claims import ROOT, Rows, run_cells

CHAINS, KILLS = 4, 5
FEWER = ["--data.train_size", "480", "--data.validation_size", "100", "--data.heldout", "0.01",
         "--training.checkpoint_every", "2", "--training.validations", "5"]  # fmt: skip
SECONDS = {"step": 0.8, "validation": 2.5, "checkpoint": 0.06, "saving": 8.0}  # about how long each lasts


def compute(rows: Rows) -> Rows:
    """Claims from rows: kills survived, and those in runs that ended as the untouched one did."""
    (untouched,) = (row for row in rows if row["cell"] == "untouched")
    chains = [row for row in rows if row["cell"] != "untouched"]
    same = [row for row in chains if all(row[key] == untouched[key] for key in ("adapter_sha256", "metrics_sha256"))]

    def claim(name: str, counted: Rows) -> dict[str, Any]:
        count = sum(len(row["kills"]) for row in counted)
        return {"name": name, "value": count, "unit": "SIGKILLs", "goal": f">= {CHAINS * KILLS}", "spread": [count, count],
                "n": len(counted)}  # fmt: skip

    return [claim("kills", chains), claim("identical", same)]


def ended(folder: Path) -> dict[str, str]:
    """What must be equal at the end: the adapter's bytes, and the metrics but for what the clock says."""
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    training = {
        k: v for k, v in metrics["training"].items() if k not in ("seconds", "updating_seconds", "examples_per_s")
    }
    kept = [metrics["evaluations"], training, metrics["data"], metrics["round_trip"]]
    adapter = (folder / "model" / "adapter" / "adapter_model.safetensors").read_bytes()
    return {
        "adapter_sha256": hashlib.sha256(adapter).hexdigest(),
        "metrics_sha256": hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest(),
    }


def live(words: list[str], die: dict[str, Any] | None, log: Path) -> int:
    """One life of the run, in a process of its own: its exit code, -9 if it was killed."""
    command = [sys.executable, __file__, "--life", json.dumps({"words": words, "die": die, "log": str(log)})]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode


def untouched() -> dict[str, Any]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        code = live(["train", "recipes/imdb-embedded.yaml", "--output", str(folder), *FEWER], None, Path(place) / "log")
        assert code == 0, code
        return {**ended(folder), "wall_s": time.monotonic() - started, "cpu_s": os.times().children_user}


def chain(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    started, cpu = time.monotonic(), os.times().children_user
    place = Path(tempfile.mkdtemp())
    folder, log = place / "run", place / "log"
    words = ["train", "recipes/imdb-embedded.yaml", "--output", str(folder), *FEWER]
    phases = [*rng.sample(["step", "validation", "checkpoint", "checkpoint"], 4), "saving"]
    kills = []
    for phase in phases:
        die = {"phase": phase, "entry": rng.randint(1, 3 if phase in ("step", "checkpoint") else 1),
               "after_s": rng.random() * SECONDS[phase]}  # fmt: skip
        code = live(words, die, log)
        assert code == -signal.SIGKILL, (code, die)
        kills.append(
            {**die, **json.loads(log.read_text("utf-8")), "left": sorted(p.name for p in folder.glob("**/*.tmp"))}
        )
        words = ["train", "--resume", str(folder)]
    assert live(words, None, log) == 0
    row = {**ended(folder), "seed": seed, "kills": kills}
    shutil.rmtree(place)
    return {**row, "wall_s": time.monotonic() - started, "cpu_s": os.times().children_user - cpu}


def life(words: list[str], die: dict[str, Any] | None, log: str) -> int:
    """In the process to be killed: the command, with the phases it goes through noted and the timer set."""
    from distilora import cli, fit, run

    now = {"in": "between", "updates": 0}
    entered = dict.fromkeys(SECONDS, 0)

    def kill() -> None:
        Path(log).write_text(json.dumps(now), "utf-8")
        os.kill(os.getpid(), signal.SIGKILL)

    def noted(phase: str, does: Callable[..., Any]) -> Callable[..., Any]:
        def doing(*args: Any, **settings: Any) -> Any:
            before, now["in"] = now["in"], phase
            entered[phase] += 1
            if die and (die["phase"], die["entry"]) == (phase, entered[phase]):
                threading.Timer(die["after_s"], kill).start()
            try:
                return does(*args, **settings)
            finally:
                now["in"] = before
                now["updates"] += phase == "step"

        return doing

    fit._step = noted("step", fit._step)
    fit._validate = noted("validation", fit._validate)
    fit.save_checkpoint = noted("checkpoint", fit.save_checkpoint)
    run.write_model = noted("saving", run.write_model)
    return cli.main(words)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--life"]:
        sys.exit(life(**json.loads(sys.argv[2])))
    cells = {"untouched": untouched} | {f"chain-{seed}": partial(chain, seed) for seed in range(1, CHAINS + 1)}
    run_cells("kill_resume", cells, compute, "make bench-kill-resume", __doc__)
