"""The round-trip guarantee: a fresh process reloads the artifact and must give back the outputs in check.npz.

In the run's precision and batches they must be equal, bit for bit; in fp32 they must be within 1e-5.
`python -m distilora.export.roundtrip MODEL_FOLDER` is that fresh process.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from distilora.artifact.check import read_check
from distilora.artifact.format import Artifact, read_artifact
from distilora.errors import DistiloraError, RoundTripError
from distilora.fresh_process import run_fresh
from distilora.hardware import Device, InferencePrecision
from distilora.tasks.base import Task
from distilora.tasks.file import add_task_file, as_words, load_task_file

TOLERANCE = 1e-5


def verify(folder: Path, task: Task, device: Device) -> dict[str, Any]:
    """Reloads `folder` in a fresh process, which computes under this one's settings of PyTorch.

    Returns what it measured; raises RoundTripError with what differs.
    """
    from distilora.export.torch_settings import settings

    done = run_fresh(
        "distilora.export.roundtrip",
        str(folder),
        "--device",
        device,
        "--torch-settings",
        json.dumps(settings()),
        *as_words(task),
    )
    if done.code:
        raise RoundTripError(f"round trip: a fresh process does not give back the model's outputs: {done.error}")
    measured: dict[str, Any] = json.loads(done.line)
    return measured


def compare(artifact: Artifact, device: Device = "auto") -> dict[str, Any]:
    """Largest differences to check.npz, in the run's precision and in fp32.

    Raises RoundTripError if the former is not 0 or the latter over 1e-5.
    """
    from distilora.batching.tokens import read_tokenizer
    from distilora.inference.backends import open_backend
    from distilora.inference.lanes import run_rows
    from distilora.tasks.registry import restore

    check = read_check(artifact.folder)
    task = restore(artifact.task["name"], artifact.task["settings"])
    rows = task.tokenise(read_tokenizer(artifact.folder / "tokenizer.json"), check.examples).rows
    found = {}
    checks: list[tuple[str, InferencePrecision, Any, float]] = [
        ("run_precision", artifact.precision, check.outputs, 0.0),
        ("fp32", "fp32", check.outputs_fp32, TOLERANCE),
    ]
    for name, precision, wanted, allowed in checks[: 1 if artifact.weights == "onnx" else 2]:
        outputs = run_rows(rows, open_backend(artifact, precision, device), artifact.token_budget)
        if outputs.shape != wanted.shape:
            raise RoundTripError(f"{name}: outputs of shape {outputs.shape}, check.npz has {wanted.shape}")
        difference = np.nan_to_num(np.abs(outputs - wanted), nan=np.inf)
        largest = float(difference.max(initial=0.0))
        if largest > allowed:
            place = int(difference.reshape(len(difference), -1).max(axis=1).argmax())
            raise RoundTripError(
                f"{name} ({precision}): outputs differ by {largest:.3g} (allowed {allowed:g}), most at text {place}: "
                f"{outputs[place].tolist()} instead of {wanted[place].tolist()}"
            )
        found[name] = {"precision": precision, "largest_difference": largest, "allowed": allowed}
    return {"texts": len(check.examples), **found}


def main() -> int:
    """The fresh process: prints one line of JSON, or the difference on stderr."""
    parser = argparse.ArgumentParser(prog="python -m distilora.export.roundtrip", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--torch-settings", type=json.loads, default={}, help="settings of PyTorch to compute under")
    add_task_file(parser)
    args = parser.parse_args()
    from distilora.export.torch_settings import compute_under

    try:
        compute_under(args.torch_settings)
        load_task_file(args.task_file, args.task_module)
        print(json.dumps(compare(read_artifact(args.folder), args.device)))
    except DistiloraError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
