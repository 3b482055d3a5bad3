"""Reads and writes scores.npz: scores of held-out answers and whether they are correct, to choose a threshold of abstention by.

    ways     names of the ways it was computed in, backend and precision, such as "torch bf16"     [W]
    scores   [W, N]
    correct  [W, N]
    choices  number of models of which these texts chose one, such as the checkpoints validated on them   [W]

and where the model has an n-gram expert, to choose a threshold of a cascade by (tasks/cascade.py):

    expert_scores  scores of the expert's own answers                       [W, N]
    harmed         whether the model is right and the expert alone wrong    [W, N]

A run's are those of its validation texts; an export's are those of the parity gate's texts, in every way that it holds.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from distilora.artifact.format import Artifact
from distilora.tasks.abstention import Scored

SCORES = "scores.npz"
_OF_EXPERT = ("expert_scores", "harmed")


def pack_scores(scored: Mapping[str, Scored]) -> bytes:
    """Serialise the scored answers, by way, as the bytes of scores.npz."""
    ways, buffer = list(scored.values()), io.BytesIO()
    arrays: dict[str, Any] = {
        "ways": np.asarray(list(scored)),
        "scores": np.stack([way.scores for way in ways]),
        "correct": np.stack([way.correct for way in ways]),
        "choices": np.asarray([way.choices for way in ways]),
    }
    for name in _OF_EXPERT:
        if all(getattr(way, name) is not None for way in ways):
            arrays[name] = np.stack([getattr(way, name) for way in ways])
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def read_scores(artifact: Artifact) -> dict[str, Scored]:
    """Read scores.npz of a model, by way; {} if it has none."""
    if SCORES not in artifact.files:
        return {}
    with np.load(artifact.folder / SCORES, allow_pickle=False) as arrays:
        rows = zip(
            arrays["ways"].tolist(), arrays["scores"], arrays["correct"], arrays["choices"].tolist(), strict=True
        )
        return {
            way: Scored(*row, **{name: arrays[name][number] for name in _OF_EXPERT if name in arrays})
            for number, (way, *row) in enumerate(rows)
        }
