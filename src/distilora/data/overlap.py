"""Finds copies shared by the parts of a run, and texts that a model was trained or chosen on.

A run's folder keeps fingerprints of all texts that it was trained or chosen on, and a digest of its validation examples. By
these `evaluate` and the parity gate recognise texts that a model has seen, and data that are no longer those of the run.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.data import duplicates
from distilora.data.duplicates import fingerprints
from distilora.data.examples import Examples

SEEN = "seen_texts.npy"  # in a run's folder, or in an export


def shared_copies(parts: dict[str, Examples]) -> dict[str, dict[str, int]]:
    """Count, for each pair of parts, the examples of the second that have an exact or near copy in the first."""
    names = list(parts)
    sets = {
        name: duplicates.shingles([" ".join(e.texts) for e in part.items], f"shingles of {name}")
        for name, part in parts.items()
    }
    keys = {name: [duplicates.exact_key(" ".join(e.texts)) for e in part.items] for name, part in parts.items()}
    shared: dict[str, dict[str, int]] = {}
    for n, first in enumerate(names):
        for second in names[n + 1 :]:
            pairs = duplicates.near_copies([*sets[first], *sets[second]])
            border = len(sets[first])
            near = {int(j) for i, j in pairs if i < border <= j}
            keys_of_first = set(keys[first])
            exact = sum(key in keys_of_first for key in keys[second])
            shared[f"{first} / {second}"] = {"exact": exact, "exact or near": max(len(near), exact)}
    return shared


def examples_digest(examples: Examples, target_name: Callable[[Any], Any]) -> str:
    """Compute the SHA-256 of the cleaned texts and the names of their targets, in order; their places do not count."""
    digest = hashlib.sha256()
    for example in examples.items:
        content = [list(example.texts), target_name(example.target)]
        digest.update(json.dumps(content, default=repr).encode() + b"\n")
    return digest.hexdigest()


def seen_file(model: Path) -> Path | None:
    """Find the fingerprints beside a model (an export) or in its run's folder; None where neither has them."""
    files = (model / SEEN, model.parent / SEEN)
    return next((file for file in files if file.is_file()), None)


def seen_among(examples: Examples, file: Path) -> NDArray[np.bool_]:
    """Mark the examples, [G], whose text has its fingerprint in `file`."""
    seen = np.load(file, allow_pickle=False)
    return np.isin(fingerprints([" ".join(example.texts) for example in examples.items]), seen)
