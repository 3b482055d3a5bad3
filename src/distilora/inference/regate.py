"""Repeats the parity gate at load, for int8 on another kind of processor than the one it was measured on.

The gate's result at export (export/parity.py) holds for the instruction set it was measured with: without VNNI, pairs of
products are added in 16 bits, and a sum that overflows saturates silently. So where the processor's flags differ from the
recorded ones, or the system does not report them, the check texts are computed in int8 here and compared with their fp32
outputs by the gate's own limits:

    labels      at most 0.5% of the texts, rounded up to whole ones, may have another label: 1 of 32
    no labels   the largest difference is at most 1% of the largest output

A model at the limit changes two or more of 32 labels in 1 case of 90; one that keeps 80% of its labels passes in 1 of 140.
A model that was exported with --accept-loss may change as large a fraction here as it did there. The metric is not measured
again: the true labels of these texts are not in the artifact.
"""

import math

import numpy as np

from distilora.artifact.check import read_check
from distilora.artifact.format import Artifact
from distilora.artifact.tokenizer import open_tokenizer
from distilora.errors import ArtifactError
from distilora.hardware import InferencePrecision, flags
from distilora.inference.backends import Backend, graphs, open_backend
from distilora.inference.lanes import run_rows
from distilora.progress import say, warn
from distilora.tasks.base import Outputs, Task

LEAST_AGREEMENT = 0.995
LEAST_SHARE = 0.01


def trusted(artifact: Artifact, task: Task, backend: Backend, requested: InferencePrecision) -> Backend:
    """Return the backend, or an fp32 one in its place, with a warning, if it computes in int8 and fails the gate here.

    Raises ArtifactError if it fails and int8 was `requested`, or the folder holds no fp32 graph.
    """
    if backend.precision != "int8" or not _elsewhere(artifact):
        return backend
    there, here = (" ".join(names) or "unknown flags" for names in (artifact.parity.get("flags") or (), flags()))
    measured = f"int8 was measured on a processor with {there}, this one has {here}"
    passed, result = regate(artifact, task, backend)
    if passed:
        say(f"note: {measured}; measured again here: {result}")
        return backend
    if requested == "int8" or "fp32" not in graphs(artifact):
        instead = "; use precision fp32" if "fp32" in graphs(artifact) else ""
        raise ArtifactError(
            f"precision: {measured}, and {result}{instead or '; export the run again on this processor, or to onnx'}"
        )
    warn(f"{artifact.folder}: {measured}, and {result}; fp32 answers in its place")
    return open_backend(artifact, "fp32")


def _elsewhere(artifact: Artifact) -> bool:
    """Tell whether int8 may have been measured with another instruction set than this processor's."""
    here = flags()
    return not here or artifact.parity.get("flags") != here


def regate(artifact: Artifact, task: Task, backend: Backend) -> tuple[bool, str]:
    """Compare the backend with fp32 on the check texts; return whether it passes, and the result in words."""
    check = read_check(artifact.folder)
    rows = task.tokenise(open_tokenizer(artifact), check.examples).rows
    return agrees(artifact, task, run_rows(rows, backend), check.outputs_fp32)


def agrees(artifact: Artifact, task: Task, outputs: Outputs, outputs_fp32: Outputs) -> tuple[bool, str]:
    """Compare a model's outputs of texts, [G, ...], with those in fp32; return whether they pass, and the result in words."""
    agreement = task.agreement(outputs, outputs_fp32)
    if agreement is None:
        difference = float(np.abs(outputs - outputs_fp32).max())
        allowed = LEAST_SHARE * float(np.abs(outputs_fp32).max())
        return difference <= allowed, f"outputs differ from fp32 by up to {difference:.3g} (at most {allowed:.3g} may)"
    texts = len(outputs)
    others, most = round((1 - agreement) * texts), _most_others(artifact, texts)
    return others <= most, f"{others} of {texts} check texts have another label than in fp32 (at most {most} may)"


def _most_others(artifact: Artifact, texts: int) -> int:
    """Return how many check texts may have another label."""
    least = LEAST_AGREEMENT
    if artifact.parity.get("accepted_loss"):
        agreement = artifact.parity["candidates"].get(f"{artifact.backend} int8", {}).get("agreement")
        least = least if agreement is None else min(least, agreement)
    return math.ceil(round((1 - least) * texts, 9))  # 0.2 of 10 are 2, not 2.0000000000000004
