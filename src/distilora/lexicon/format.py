"""Stores an n-gram expert as `lexicon/lexicon.safetensors`, a few MB: the n-grams that matter most, weights in 16 bits.

keys       uint64 [V]     sorted
weights    fp16 [V, D]
bias       fp32 [D]
mean_size  fp64 [1]
metadata   classes, longest, factor

An n-gram matters by |weight| * sqrt(number of training texts that hold it), the root of what it adds to the variance of the
logits. `distilora train` measures what pruning and rounding cost, and records it.
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from distilora.errors import ArtifactError
from distilora.lexicon.nbsvm import Counted, Lexicon

FILE = "lexicon/lexicon.safetensors"
MOST_BYTES = 2_000_000
FACTOR = "sqrt(m / max(K, m))"  # what the logits are computed with (lexicon/nbsvm.py)


def compact(lexicon: Lexicon, counted: Counted, most_bytes: int = MOST_BYTES) -> Lexicon:
    """Keep the n-grams that matter most, within `most_bytes` as stored, their weights rounded to 16 bits.

    `counted` holds the training texts, in the lexicon's columns.
    """
    columns = lexicon.weights.shape[1]
    most = most_bytes // (8 + 2 * columns)
    texts = np.asarray(counted.presence.sum(axis=0)).ravel()
    importance = np.abs(lexicon.weights).max(axis=1) * np.sqrt(texts)
    chosen = np.sort(np.argsort(-importance, kind="stable")[:most])
    weights = lexicon.weights[chosen].astype(np.float16).astype(np.float32)
    return Lexicon(lexicon.classes, lexicon.keys[chosen], weights, lexicon.bias, lexicon.mean_size, lexicon.longest)


def write_lexicon(lexicon: Lexicon, folder: Path) -> None:
    """Write a compact lexicon to FILE in a model's folder."""
    path = folder / FILE
    path.parent.mkdir()
    tensors = {
        "keys": lexicon.keys,
        "weights": lexicon.weights.astype(np.float16),
        "bias": lexicon.bias,
        "mean_size": np.asarray([lexicon.mean_size]),
    }
    path.write_bytes(
        save(tensors, {"classes": str(lexicon.classes), "longest": str(lexicon.longest), "factor": FACTOR})
    )


def read_lexicon(folder: Path) -> Lexicon:
    """Read the lexicon of a model's folder, whose checksum the artifact has verified.

    Raises ArtifactError if it is damaged, or was fitted with a factor that this release does not compute.
    """
    path = folder / FILE
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in ("keys", "weights", "bias", "mean_size")}
        lexicon = Lexicon(
            int(metadata["classes"]), tensors["keys"], tensors["weights"].astype(np.float32), tensors["bias"],
            float(tensors["mean_size"][0]), int(metadata["longest"]),
        )  # fmt: skip
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise ArtifactError(f"{path}: damaged ({error}); copy the model again") from None
    if metadata.get("factor") != FACTOR:
        raise ArtifactError(
            f"{path}: of an earlier release, whose n-gram expert weighs short texts otherwise; train again, or leave the expert "
            "out with --lexicon none"
        )
    return lexicon
