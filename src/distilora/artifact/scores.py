"""Reads and writes scores.npz: scores of held-out answers and whether they are correct, to choose a threshold of abstention by.

    ways     names of the ways it was computed in, backend and precision, such as "torch bf16"     [W]
    scores   [W, N]
    correct  [W, N]
    choices  number of models of which these texts chose one, such as the checkpoints validated on them   [W]

A run's are those of its validation texts; an export's are those of the parity gate's texts, in every way that it holds.
"""

import io
from collections.abc import Mapping

import numpy as np

from distilora.artifact.format import Artifact
from distilora.tasks.abstention import Scored

SCORES = "scores.npz"


def pack_scores(scored: Mapping[str, Scored]) -> bytes:
    """Serialise the scored answers, by way, as the bytes of scores.npz."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        ways=np.asarray(list(scored)),
        scores=np.stack([answers.scores for answers in scored.values()]),
        correct=np.stack([answers.correct for answers in scored.values()]),
        choices=np.asarray([answers.choices for answers in scored.values()]),
    )
    return buffer.getvalue()


def read_scores(artifact: Artifact) -> dict[str, Scored]:
    """Read scores.npz of a model, by way; {} if it has none."""
    if SCORES not in artifact.files:
        return {}
    with np.load(artifact.folder / SCORES, allow_pickle=False) as arrays:
        rows = zip(
            arrays["ways"].tolist(), arrays["scores"], arrays["correct"], arrays["choices"].tolist(), strict=True
        )
        return {way: Scored(scores, correct, choices) for way, scores, correct, choices in rows}
