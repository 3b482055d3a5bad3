"""What a run's folder still knows of its texts: fingerprints of all it learnt or chose by, a digest of its validation.

By these `evaluate` and the parity gate tell texts that a model has seen, and data that are no longer those of the run.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.artifact import Artifact
from distilora.duplicates import fingerprints
from distilora.examples import Examples
from distilora.tasks import Task

SEEN = "seen_texts.npy"  # in a run's folder, or in an export


def target_name(task: Task, target: Any) -> Any:
    """The label of a target that is an index into the task's labels, else the target itself."""
    return task.labels[target] if task.labels and isinstance(target, int) else target


def examples_digest(task: Task, examples: Examples) -> str:
    """SHA-256 of the cleaned texts and their labels, in order, wherever they were read."""
    digest = hashlib.sha256()
    for example in examples.items:
        known = [list(example.texts), target_name(task, example.target)]
        digest.update(json.dumps(known, default=repr).encode() + b"\n")
    return digest.hexdigest()


def seen_file(artifact: Artifact) -> Path | None:
    """The fingerprints beside the model (an export) or in its run's folder; None where neither holds them."""
    files = (artifact.folder / SEEN, artifact.folder.parent / SEEN)
    return next((file for file in files if file.is_file()), None)


def seen_among(examples: Examples, file: Path) -> NDArray[np.bool_]:
    """Which examples, [G], have a text whose fingerprint `file` holds."""
    seen = np.load(file, allow_pickle=False)
    return np.isin(fingerprints([" ".join(example.texts) for example in examples.items]), seen)
