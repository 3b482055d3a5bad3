"""The parity gate once more, at load: int8 on another kind of processor than the one it was measured on.

What the gate measured at the export (export/parity.py) holds for the instruction set it was measured with: without VNNI, pairs of
products are added in 16 bits, and a sum that does not fit is cut off without a word. So where the processor's flags are
others than the recorded ones, or the system does not tell them, the texts of check.npz are computed in int8 here and
compared with their fp32 outputs by the gate's own limits:

    labels      at most 0.5% of the texts, rounded up to whole ones, may have another label: 1 of 32
    no labels   the largest difference is at most 1% of the largest output

A model at the limit has two other labels or more among 32 in 1 case of 90; one that keeps 80% of its labels passes in 1 of
140. A model that was exported with --accept-loss may lose as large a share here as it lost there. The metric is not measured
again: the labels of these texts did not travel.
"""

import math

import numpy as np

from distilora.artifact.check import read_check
from distilora.artifact.format import Artifact
from distilora.batching.tokens import read_tokenizer
from distilora.errors import ArtifactError
from distilora.hardware import InferencePrecision, flags
from distilora.inference.backends import Backend, graphs, open_backend
from distilora.inference.lanes import run_rows
from distilora.progress import say, warn
from distilora.tasks.base import Task

LEAST_AGREEMENT = 0.995
LEAST_SHARE = 0.01


def trusted(artifact: Artifact, task: Task, backend: Backend, asked: InferencePrecision) -> Backend:
    """The backend; or an fp32 one in its place, with a warning, where it computes in int8 and fails the gate here.

    Raises ArtifactError if it fails and int8 is what was `asked` for, or the folder holds no fp32 graph.
    """
    if backend.precision != "int8" or not _elsewhere(artifact):
        return backend
    there, here = (" ".join(known) or "unknown flags" for known in (artifact.parity.get("flags") or (), flags()))
    measured = f"int8 was measured on a processor with {there}, this one has {here}"
    passed, how_far = regate(artifact, task, backend)
    if passed:
        say(f"note: {measured}; measured again here: {how_far}")
        return backend
    if asked == "int8" or "fp32" not in graphs(artifact):
        instead = "; use precision fp32" if "fp32" in graphs(artifact) else ""
        raise ArtifactError(
            f"precision: {measured}, and {how_far}{instead or '; export the run again on this processor, or to onnx'}"
        )
    warn(f"{artifact.folder}: {measured}, and {how_far}; fp32 answers in its place")
    return open_backend(artifact, "fp32")


def _elsewhere(artifact: Artifact) -> bool:
    """Whether int8 was not measured with the instruction set of this processor."""
    here = flags()
    return not here or artifact.parity.get("flags") != here


def regate(artifact: Artifact, task: Task, backend: Backend) -> tuple[bool, str]:
    """Whether the backend answers the check's texts as fp32 does, by the rule above, and in words how far."""
    check = read_check(artifact.folder)
    rows = task.tokenise(read_tokenizer(artifact.folder / "tokenizer.json"), check.examples).rows
    outputs, wanted = run_rows(rows, backend), check.outputs_fp32
    agreement = task.agreement(outputs, wanted)
    if agreement is None:
        difference = float(np.abs(outputs - wanted).max())
        allowed = LEAST_SHARE * float(np.abs(wanted).max())
        return difference <= allowed, f"outputs differ from fp32 by up to {difference:.3g} (at most {allowed:.3g} may)"
    others, most = round((1 - agreement) * len(wanted)), _most_others(artifact, len(wanted))
    return others <= most, f"{others} of {len(wanted)} check texts have another label than in fp32 (at most {most} may)"


def _most_others(artifact: Artifact, texts: int) -> int:
    """Check texts that may have another label."""
    least = LEAST_AGREEMENT
    if artifact.parity.get("accepted_loss"):
        agreement = artifact.parity["candidates"].get("onnx int8", {}).get("agreement")
        least = least if agreement is None else min(least, agreement)
    return math.ceil(round((1 - least) * texts, 9))  # 0.2 of 10 are 2, not 2.0000000000000004
