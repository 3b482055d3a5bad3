"""Bench at DistilBERT-base's size: 66M parameters, 768 wide. What is compared is as in bench/speed and bench/inference.

    model                    the encoder, a run that trains on 1,500 reviews, and its exports
    train-N-CONTENDER        reviews/s at max length 512: `Trainer` + `peft` as people copy it (reference), as the documentation
                             has it (tuned, the better of batches of 16 and 32), distilora over three epochs
    memory-N-CONTENDER       peak of anonymous memory at 2,048 tokens a pass: full fine-tuning by `Trainer`, distilora
    roofline-N               share of the processor's ceiling (speed/roofline.py)
    predict-N-CONTENDER      reviews/s of `pipeline` as it comes and of our exports

Rounds N are interleaved. No weights of DistilBERT-base are on hand, and random ones would give answers too near to ties for
the parity gate. So the encoder is the embedded one made twice as wide without changing what it computes (Net2Net, Chen et al.
2016): every number of a state stands twice, heads have 64 numbers for 32, the feed-forward part 3,072 for 1,536. Speed and
memory do not depend on the values.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from bench.harness.claims import ROOT, Rows, run_cells, timed
from bench.inference.contender import INT8, MERGED, OPENVINO
from bench.speed.__main__ import distilora, python
from bench.speed.data import prepare

WORK = Path(os.environ.get("BASE_WORK", tempfile.gettempdir())) / "distilora-bench-base"
DATA, ENCODER = WORK / "data", WORK / "data" / "encoder"
ROUNDS, EACH = 3, 200
REVIEWS = {"reference": 32, "tuned": 160, "tuned_16": 160, "distilora": 256}
PREDICTING = ("pipeline", "distilora_int8", "distilora_openvino")
HEADS = 12  # of the narrow encoder, and of the wide one
MODEL = ("--encoder.name", str(ENCODER))


def compute(rows: Rows) -> Rows:
    """Claims from rows: medians of the rounds' ratios, spread from least to most."""
    cells = {row["cell"]: row for row in rows}
    rounds = range(1, ROUNDS + 1)

    def trained(number: int, *names: str) -> float:
        return max(float(cells[f"train-{number}-{name}"]["reviews_per_s"]) for name in names)

    def predicted(number: int, name: str) -> float:
        return float(cells[f"predict-{number}-{name}"]["reviews_per_s"])

    def peak(number: int, name: str) -> float:
        return float(cells[f"memory-{number}-{name}"]["peak_mb"])

    def claim(name: str, values: list[float], unit: str, goal: str) -> dict[str, Any]:
        return {"name": name, "value": statistics.median(values), "unit": unit, "goal": goal,
                "spread": [min(values), max(values)], "n": len(values)}  # fmt: skip

    return [
        claim("reviews_per_s_vs_reference", [trained(n, "distilora") / trained(n, "reference") for n in rounds],
              "times, three epochs each", ">= 20"),
        claim("reviews_per_s_vs_tuned", [trained(n, "distilora") / trained(n, "tuned", "tuned_16") for n in rounds],
              "times, three epochs each", ">= 2"),
        claim("share_of_peak", [row["share"] for n in rounds for row in cells[f"roofline-{n}"]["rounds"]],
              "share of the bf16 matrix peak", ">= 0.70"),
        claim("peak_memory_vs_full", [peak(n, "distilora") / peak(n, "full") for n in rounds], "times", "<= 0.35"),
        claim("throughput_vs_pipeline", [predicted(n, "distilora_int8") / predicted(n, "pipeline") for n in rounds],
              "times, onnx-int8", ">= 5"),
        claim("openvino_throughput_vs_pipeline",
              [predicted(n, "distilora_openvino") / predicted(n, "pipeline") for n in rounds], "times, openvino", "none"),
        claim("parameters", [float(cells["model"]["parameters"])], "parameters of the encoder", "none"),
        claim("agreement", [gate["candidates"][gate["default"]]["agreement"] for gate in cells["model"]["gates"].values()],
              "share of the gate's reviews with the run's label", "none"),
    ]  # fmt: skip


def widen() -> int:
    """Write the encoder, if it is not there; return its number of parameters."""
    from safetensors.torch import load_file, save_file

    narrow = prepare(WORK / "narrow") / "encoder"
    if not ENCODER.is_dir():
        for name in ("train", "validation", "heldout"):
            DATA.mkdir(parents=True, exist_ok=True)
            shutil.copy(WORK / "narrow" / f"{name}.jsonl", DATA)
        wide = shutil.copytree(narrow, DATA / "widening")
        config = json.loads((narrow / "config.json").read_text("utf-8"))
        config |= {"dim": 2 * config["dim"], "hidden_dim": 2 * config["hidden_dim"]}
        (wide / "config.json").write_text(json.dumps(config), "utf-8")
        weights = {name: twice(name, tensor) for name, tensor in load_file(narrow / "model.safetensors").items()}
        save_file(weights, wide / "model.safetensors", {"format": "pt"})
        wide.rename(ENCODER)
    return sum(tensor.numel() for tensor in load_file(ENCODER / "model.safetensors").values())


def twice(name: str, tensor: Any) -> Any:
    """Widen a tensor of DistilBERT: states are repeated, a layer adds up halves, scores stay what they are.

    A head of twice the numbers adds up twice the products and divides by sqrt(2) times as much: queries are divided by that.
    """
    import torch

    scale = 2**-0.5 if ".q_lin." in name else 1.0
    if tensor.ndim == 1 or "embeddings." in name:
        outputs = (
            _heads(tensor)
            if ".q_lin." in name or ".k_lin." in name or ".v_lin." in name
            else torch.cat((tensor, tensor), -1)
        )
        return (outputs * scale).contiguous()
    inputs = torch.cat((tensor, tensor), 1) / 2
    if ".out_lin." in name:  # reads heads, whose numbers stand twice within each
        heads = tensor.view(len(tensor), HEADS, -1)
        inputs = torch.cat((heads, heads), 2).reshape(len(tensor), -1) / 2
    if any(part in name for part in (".q_lin.", ".k_lin.", ".v_lin.")):
        return (_heads(inputs) * scale).contiguous()
    return torch.cat((inputs, inputs), 0).contiguous()


def _heads(tensor: Any) -> Any:
    """Repeat the outputs of each head, along the first dimension."""
    import torch

    heads = tensor.view(HEADS, -1, *tensor.shape[1:])
    return torch.cat((heads, heads), 1).reshape(2 * len(tensor), *tensor.shape[1:])


def make_model() -> dict[str, Any]:
    """The run and its exports, as far as they are not there; what their gates said."""
    parameters, wall, cpu = widen(), 0.0, 0.0
    run = WORK / "run"

    def do(*words: str) -> None:
        nonlocal wall, cpu
        took = timed([str(Path(sys.executable).parent / "distilora"), *words])
        wall, cpu = wall + took[0], cpu + took[1]

    if not (run / "model").is_dir():
        do(
            "train",
            str(ROOT / "bench" / "encoder.yaml"),
            *MODEL,
            "--data.max_length",
            "512",
            "--data.train_size",
            "1500",
            "--data.validation_size",
            "1000",
            "--data.heldout",
            "0.01",
            "--training.tracker",
            "none",
            "--output",
            str(run),
        )
    for form in (MERGED, INT8, OPENVINO):
        if not (WORK / form).is_dir():
            do("export", str(run), "--to", form, "--output", str(WORK / form))
    gates = {
        form: json.loads((WORK / form / "artifact.json").read_text("utf-8"))["parity"] for form in (INT8, OPENVINO)
    }
    return {"parameters": parameters, "gates": gates, "wall_s": wall, "cpu_s": cpu}


def train(name: str) -> dict[str, Any]:
    """Reviews/s over a few reviews."""
    widen()
    reviews = REVIEWS[name]
    if name == "distilora":
        wall, cpu, run = distilora(
            *MODEL,
            "--data.train_size",
            str(reviews),
            "--training.epochs",
            "3",
            "--training.validations",
            "1",
            "--data.validation_size",
            "16",
            "--data.heldout",
            "0.01",
        )
        rate = run["metrics"]["training"]["examples_per_s"]
        return {"reviews_per_s": rate, "reviews": reviews, "wall_s": wall, "cpu_s": cpu}
    words = ["reference"] if name == "reference" else ["tuned", "--dropout", "0"]
    batch = ["--batch", "16"] if name == "tuned_16" else []
    wall, cpu, row = python("-m", f"bench.speed.{words[0]}", str(DATA), "--reviews", str(reviews), *words[1:], *batch)
    return {"reviews_per_s": reviews / sum(row["step_s"]), "reviews": reviews, **row, "wall_s": wall, "cpu_s": cpu}


def memory(name: str) -> dict[str, Any]:
    """Peak of anonymous memory, MB, as in bench/speed."""
    widen()
    if name == "full":
        words = ("--full", "--dropout", "0", "--tokens", "2048", "--reviews", "48")
        wall, cpu, row = python("-m", "bench.speed.tuned", str(DATA), *words)
        return {"peak_mb": row["peak_mb"], "resident_mb": row["resident_mb"], "wall_s": wall, "cpu_s": cpu}
    from bench.speed.scale import long_reviews

    file = long_reviews(DATA / "train.jsonl", WORK / "long.jsonl")
    wall, cpu, run = distilora(
        *MODEL, "--data.path", str(file), "--data.max_length", "256", "--data.validation_size", "8", "--data.labels", "null",
        "--training.validations", "1", "--data.train_size", "48", "--data.truncation_side", "right",
    )  # fmt: skip
    metrics = run["metrics"]
    return {"peak_mb": metrics["memory"]["peak_mb"], "resident_mb": metrics["costs"]["peak_resident_mb"], "wall_s": wall,
            "cpu_s": cpu}  # fmt: skip


def roofline() -> dict[str, Any]:
    """A round of roofline.py."""
    widen()
    words = ("--rounds", "2", "--encoder", str(ENCODER))
    wall, cpu, row = python("-m", "bench.speed.roofline", str(DATA), *words)
    return {**row, "wall_s": wall, "cpu_s": cpu}


def predict(number: int, name: str) -> dict[str, Any]:
    """Reviews/s of a contender on a round's reviews."""
    words = ("--start", str((number - 1) * EACH), "--take", str(EACH))
    wall, cpu, row = python("-m", "bench.inference.contender", name, str(WORK), str(DATA / "heldout.jsonl"), *words)
    return {**row, "wall_s": wall, "cpu_s": cpu}


if __name__ == "__main__":
    cells: dict[str, Any] = {"model": make_model}
    for number in range(1, ROUNDS + 1):
        cells |= {f"train-{number}-{name}": partial(train, name) for name in REVIEWS}
        cells |= {f"memory-{number}-{name}": partial(memory, name) for name in ("full", "distilora")}
        cells[f"roofline-{number}"] = roofline
        cells |= {f"predict-{number}-{name}": partial(predict, number, name) for name in PREDICTING}
    run_cells("base", cells, compute, "make bench-base", __doc__)
