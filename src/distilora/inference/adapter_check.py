"""Checks an adapter on its shared encoder before it answers: the outputs of check.npz, computed by it alone, against those stored.

    fp32    |outputs - stored| <= 1e-4 + 1e-5 max |stored|; the sums are those of the merged weights, in another order, and a
            regression's outputs may be numbers of any size
    bf16    |outputs - stored| <= 0.05 (greatest - least stored output), and the same label wherever the stored two greatest
            outputs are further apart than that

The stored outputs are those in fp32, `outputs_fp32`. In bf16 the shared arithmetic rounds weights and factors of the updates, a
backend of the adapter's own their sum, so the outputs of the two differ as much as either do from fp32: on seven models of six
tasks over the embedded encoder by 0.2 to 1.4% of the range, while another's adapter is wrong by a good part of it.
"""

from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from distilora.artifact.check import read_check
from distilora.artifact.format import Artifact
from distilora.artifact.tokenizer import open_tokenizer
from distilora.batching.outputs import NOTHING
from distilora.errors import ArtifactError
from distilora.hardware import InferencePrecision
from distilora.inference.backends import Backend
from distilora.inference.lanes import run_rows
from distilora.tasks.base import Task
from distilora.tasks.registry import restore

TOLERANCE, RELATIVE = 1e-4, 1e-5  # in fp32
SHARE = 0.05  # in bf16, of the range of the stored outputs

Outputs = NDArray[np.float32]


def check_adapter(artifact: Artifact, backend: Backend) -> float:
    """Compare the outputs of an artifact's adapter with those in its check.npz; return the largest difference.

    `backend` computes the adapter alone, such as `SharedEncoder.alone`. Raises ArtifactError if they differ by more than rounding
    does, are not finite or of another shape, or check.npz is damaged.
    """
    try:
        check = read_check(artifact.folder)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ArtifactError(f"{artifact.folder}/check.npz: damaged ({error}); copy the model again") from None
    task = restore(artifact.task["name"], artifact.task["settings"])
    rows = task.tokenise(open_tokenizer(artifact), check.examples).rows
    outputs = run_rows(rows, backend, artifact.token_budget)
    return compare_adapter(artifact, task, backend.precision, outputs, check.outputs_fp32)


def compare_adapter(
    artifact: Artifact, task: Task, precision: InferencePrecision, outputs: Outputs, stored: Outputs
) -> float:
    """Compare outputs of the check texts on a shared encoder with those stored; return the largest difference.

    Raises ArtifactError as `check_adapter` does.
    """
    if outputs.shape != stored.shape:
        raise ArtifactError(
            f"{artifact.folder}: outputs of shape {outputs.shape} on the shared encoder, check.npz has {stored.shape}; copy the "
            "model again"
        )
    values = stored[stored != NOTHING]
    in_fp32 = TOLERANCE + RELATIVE * float(np.abs(values).max(initial=0.0))
    allowed = in_fp32 if precision == "fp32" else SHARE * float(np.ptp(values)) if len(values) else 0.0
    difference = np.nan_to_num(np.abs(outputs - stored), nan=np.inf)
    largest = float(difference.max(initial=0.0))
    if largest > allowed:
        text = int(difference.reshape(len(difference), -1).max(axis=1).argmax())
        raise ArtifactError(
            f"{artifact.folder}: on the shared encoder, in {precision}, outputs differ from check.npz by {largest:.3g} "
            f"(allowed {allowed:.3g}), most at text {text}; load it by itself, or copy the model again"
        )
    if task.labels and stored.ndim == 2 and stored.shape[1] > 1:
        clear = np.diff(np.sort(stored, axis=1)[:, -2:], axis=1)[:, 0] > allowed
        other = np.flatnonzero(clear & (outputs.argmax(axis=1) != stored.argmax(axis=1)))
        if len(other):
            raise ArtifactError(
                f"{artifact.folder}: on the shared encoder, in {precision}, text {other[0]} of check.npz has another "
                f"label, though outputs differ by {largest:.3g} at most; load it by itself, or copy the model again"
            )
    return largest
