"""Training on a GPU, wherever there is one:  python -m bench.speed.gpu [--reviews 22500]

Three figures, as one line of JSON each:

    share      of the measured bf16 peak, DistilBERT-base's geometry with random weights, 256 and 512 tokens (roofline.py)
    tuned      reviews/s of tuned.py on the same GPU, embedded encoder, batches of 32 and 128, without dropout
    distilora  reviews/s, and seconds from the start of the process to the evaluated model, embedded encoder, 512 tokens

On a CPU it runs, too, with few reviews: a check of the script and not a figure.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

from bench.speed.__main__ import DATA, distilora, python
from bench.speed.data import prepare


def random_base(folder: Path, tokenizer: Path) -> Path:
    """DistilBERT-base with random weights and the embedded encoder's tokenizer, whose vocabulary is as large."""
    if not (folder / "model.safetensors").exists():
        DistilBertModel(DistilBertConfig()).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def main() -> None:
    """Prints the figures as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, default=22500)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    data = prepare(DATA)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"

    def say(figure: str, **values: object) -> None:
        print(json.dumps({"figure": figure, "device": name, **values}), flush=True)

    with tempfile.TemporaryDirectory() as work:
        encoder = random_base(Path(work) / "base", data / "encoder")
        for length in (256, 512):
            words = ["--device", args.device, "--encoder", str(encoder), "--length", str(length), "--rounds", "3"]
            row = python("-m", "bench.speed.roofline", str(data), *words)[2]
            say("share", length=length, rounds=row["rounds"])
    for batch in (32, 128):
        words = ["--dropout", "0", "--batch", str(batch), "--reviews", str(args.reviews)]
        wall, _, row = python("-m", "bench.speed.tuned", str(data), *words)
        say("tuned", batch=batch, reviews_per_s=args.reviews / sum(row["step_s"]), wall_s=wall)
    size = str(args.reviews)
    wall, _, run = distilora("--data.train_size", size, "--training.device", args.device, "--training.validations", "1")
    metrics = run["metrics"]
    say(
        "distilora",
        reviews_per_s=metrics["training"]["examples_per_s"],
        evaluated_after_s=wall,
        stages_s=metrics["costs"]["stages_s"],
        heldout_right=sum(run["right"]) / max(len(run["right"]), 1),
    )


if __name__ == "__main__":
    sys.exit(main())
