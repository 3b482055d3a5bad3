"""The model that is served: a run, its exports for the peers, and held-out reviews that nobody was trained on, in WORK."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from bench.harness.claims import ROOT
from bench.serving import EXPORTS, Row
from bench.serving.servers import environment

WORK = Path(os.environ.get("SERVING_WORK", tempfile.gettempdir())).resolve() / "distilora-bench-serving"
RUN = Path(os.environ.get("SERVING_RUN", WORK / "run")).resolve()
FORMS = ("merged", "onnx", *EXPORTS.values())
# A form whose gate refuses this very run is served all the same, as one more contender; the row has what its gate found.
ACCEPTED = {"onnx-int8": ["--accept-loss"]}
RECIPE = ROOT / "recipes" / "imdb-embedded.yaml"
# Peers have no place for an n-gram expert, and read the beginning of a longer review: the run has none and does so, too.
SAME_FOR_ALL = ("--lexicon", "none", "--data.truncation_side", "right", "--training.tracker", "none")


def make_model() -> Row:
    """Train the run, unless it is there, and export it; return what the gates of the exports said."""
    WORK.mkdir(parents=True, exist_ok=True)
    if not (RUN / "model").is_dir():
        distilora("train", str(RECIPE), *SAME_FOR_ALL, "--output", str(RUN))
    for form in FORMS:
        if not (WORK / form).is_dir():
            distilora("export", str(RUN), "--to", form, "--output", str(WORK / form), *ACCEPTED.get(form, []))
    for_transformers_4(WORK / "merged")
    shutil.copyfile(WORK / "onnx" / "model.onnx", WORK / "merged" / "model.onnx")  # where optimum looks for it
    write_reviews(WORK / "reviews.jsonl")
    artifact = json.loads((RUN / "model" / "artifact.json").read_text("utf-8"))
    gates = {form: json.loads((WORK / form / "artifact.json").read_text("utf-8"))["parity"] for form in FORMS}
    for gate in gates.values():
        del gate["held_out"]  # may name a folder of this machine
    return {
        "settings": " ".join(SAME_FOR_ALL) if "SERVING_RUN" not in os.environ else "those of the run SERVING_RUN",
        "max_length": artifact["max_length"], "truncation_side": artifact["truncation_side"],
        "expert": bool(artifact["lexicon"]),
        "reviews": len(reviews()[0]), "gates": gates,
    }  # fmt: skip


def distilora(*words: str) -> None:
    """Run the command."""
    subprocess.run(
        [sys.executable, "-m", "distilora", "--quiet", *words], check=True, cwd=ROOT, env=environment(own=True)
    )


def for_transformers_4(folder: Path) -> None:
    """Name the tokenizer's class as Transformers 4 does, too: Transformers 5 has another name for the same."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**settings, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n", "utf-8")


def write_reviews(path: Path) -> None:
    """Write the run's held-out reviews, shuffled, with the names of their labels."""
    from distilora.config.parse import parse, read_recipe
    from distilora.config.schema import RunConfig
    from distilora.data.parts import read_parts
    from distilora.runs.preflight import check_data
    from distilora.tasks.registry import find_task

    config = parse(RunConfig, (), read_recipe(RUN / "run.yaml"))
    data, task = check_data(config.data, find_task(config.task))
    read_test = read_parts(data, task).read_test
    if read_test is None:
        raise SystemExit("SERVING_RUN: the run has no test split; give one that holds reviews out")
    labels = json.loads((RUN / "model" / "artifact.json").read_text("utf-8"))["task"]["settings"]["labels"]
    lines = [json.dumps({"text": item.texts[0], "label": labels[item.target]}) for item in read_test().items]
    random.Random(0).shuffle(lines)
    path.write_text("\n".join(lines) + "\n", "utf-8")


@cache
def reviews() -> tuple[list[str], list[str]]:
    """Return texts and labels of the held-out reviews."""
    rows = [json.loads(line) for line in (WORK / "reviews.jsonl").read_text("utf-8").splitlines()]
    return [row["text"] for row in rows], [row["label"] for row in rows]
