"""One contender on the reviews of a JSON-lines file: python -m bench.inference.contender NAME WORK REVIEWS [--how JSON] [--take N]

Prints one line of JSON: seconds (without loading), labels, targets, how.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MERGED, INT8, FP32, OPENVINO, PLAIN = "merged", "onnx-int8", "onnx", "openvino", "plain.onnx"
CASCADE = "cascade-openvino"  # of another run, with an n-gram expert


def pipeline(work: Path, how: dict[str, Any]) -> Callable[[list[str]], list[str]]:
    """Transformers' own, with `dtype` and `batch_size` where given."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    dtype = {"dtype": getattr(torch, how["dtype"])} if "dtype" in how else {}
    classify = transformers.pipeline("text-classification", model=str(work / MERGED), device="cpu", **dtype)
    size = {"batch_size": how["batch_size"]} if "batch_size" in how else {}
    return lambda texts: [answer["label"] for answer in classify(texts, truncation=True, **size)]


def ort_fp32(work: Path, how: dict[str, Any]) -> Callable[[list[str]], list[str]]:
    """The Transformers model as torch.onnx writes it, batches as they come, padded to their longest."""
    import onnxruntime
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work / MERGED)
    names = AutoConfig.from_pretrained(work / MERGED).id2label
    session = onnxruntime.InferenceSession(str(work / PLAIN), providers=["CPUExecutionProvider"])
    size = how["batch_size"]

    def run(texts: list[str]) -> list[str]:
        labels = []
        for start in range(0, len(texts), size):
            batch = tokenizer(texts[start : start + size], truncation=True, padding=True, return_tensors="np")
            feed = {name: batch[name].astype("int64") for name in ("input_ids", "attention_mask")}
            labels += [names[int(row.argmax())] for row in session.run(None, feed)[0]]
        return labels

    return run


def ours(folder: str, cascade: bool = False) -> Callable[[Path, dict[str, Any]], Callable[[list[str]], list[str]]]:
    """distilora with its defaults, and with the cascade if asked for."""

    def opened(work: Path, how: dict[str, Any]) -> Callable[[list[str]], list[str]]:
        from distilora import load

        predictor = load(work / folder, cascade=cascade)
        how["precision"] = f"{type(predictor.backend).__name__} {predictor.backend.precision}"
        return lambda texts: [answer["label"] for answer in predictor(texts)]

    return opened


CONTENDERS = {
    "pipeline": pipeline, "pipeline_best": pipeline, "ort_fp32": ort_fp32, "distilora_int8": ours(INT8),
    "distilora_openvino": ours(OPENVINO), "distilora_fp32": ours(FP32), "distilora_merged": ours(MERGED),
    "distilora_combined": ours(CASCADE), "distilora_cascade": ours(CASCADE, cascade=True),
}  # fmt: skip


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(CONTENDERS))
    parser.add_argument("work", type=Path)
    parser.add_argument("reviews", type=Path)
    parser.add_argument("--how", type=json.loads, default={})
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--take", type=int, default=1000)
    args = parser.parse_args()
    lines = [json.loads(line) for line in args.reviews.read_text("utf-8").splitlines()]
    lines = lines[args.start : args.start + args.take]
    run = CONTENDERS[args.name](args.work, args.how)
    run([line["text"] for line in lines[:4]])
    started = time.monotonic()
    labels = run([line["text"] for line in lines])
    seconds = time.monotonic() - started
    names = ("negative", "positive")
    print(json.dumps({"seconds": seconds, "reviews_per_s": len(lines) / seconds, "how": args.how, "labels": labels,
                      "targets": [names[line["label"]] for line in lines]}))  # fmt: skip


if __name__ == "__main__":
    main()
