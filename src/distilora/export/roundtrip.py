"""The round trip: a fresh process reloads the artifact and must give back the outputs in check.npz.

In the run's precision and batches the outputs must be equal bit for bit; in fp32 they may differ by 1e-5.
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
from distilora.tasks.file import add_task_file, load_task_file, task_arguments

TOLERANCE = 1e-5


def verify(folder: Path, task: Task, device: Device) -> dict[str, Any]:
    """Reload `folder` in a fresh process, which computes under this one's PyTorch settings; return its comparison.

    Raises RoundTripError with the difference.
    """
    from distilora.export.torch_settings import settings

    result = run_fresh(
        "distilora.export.roundtrip",
        str(folder),
        "--device",
        device,
        "--torch-settings",
        json.dumps(settings()),
        *task_arguments(task),
    )
    if result.code:
        raise RoundTripError(f"round trip: a fresh process does not give back the model's outputs: {result.error}")
    comparison: dict[str, Any] = json.loads(result.line)
    return comparison


def compare(artifact: Artifact, device: Device = "auto") -> dict[str, Any]:
    """Measure the largest differences from check.npz, in the run's precision and in fp32.

    Raises RoundTripError if the former is not 0 or the latter exceeds 1e-5.
    """
    from distilora.artifact.tokenizer import open_tokenizer
    from distilora.inference.backends import open_backend
    from distilora.inference.calibrate import calibrator_of
    from distilora.inference.lanes import run_rows
    from distilora.tasks.registry import restore

    check = read_check(artifact.folder)
    task = restore(artifact.task["name"], artifact.task["settings"])
    rows = task.tokenise(open_tokenizer(artifact), check.examples).rows
    comparison = {}
    checks: list[tuple[str, InferencePrecision, Any, float]] = [
        ("run_precision", artifact.precision, check.outputs, 0.0),
        ("fp32", "fp32", check.outputs_fp32, TOLERANCE),
    ]
    for name, precision, expected, allowed in checks[: 1 if artifact.backend != "torch" else 2]:
        outputs = run_rows(rows, open_backend(artifact, precision, device), artifact.token_budget)
        if outputs.shape != expected.shape:
            raise RoundTripError(f"{name}: outputs of shape {outputs.shape}, check.npz has {expected.shape}")
        difference = np.nan_to_num(np.abs(outputs - expected), nan=np.inf)
        largest = float(difference.max(initial=0.0))
        if largest > allowed:
            text = int(difference.reshape(len(difference), -1).max(axis=1).argmax())
            raise RoundTripError(
                f"{name} ({precision}): outputs differ by {largest:.3g} (allowed {allowed:g}), most at text {text}: "
                f"{outputs[text].tolist()} instead of {expected[text].tolist()}"
            )
        comparison[name] = {"precision": precision, "largest_difference": largest, "allowed": allowed}
    expert = calibrator_of(artifact).expert
    if expert is not None:
        logits = expert.logits(check.examples)
        if check.expert is None or not np.array_equal(logits, check.expert):
            raise RoundTripError("n-gram expert: its logits of the check texts are not those in check.npz")
    return {"texts": len(check.examples), **comparison}


def main() -> int:
    """Run the fresh process: print one line of JSON, or the difference on stderr."""
    parser = argparse.ArgumentParser(prog="python -m distilora.export.roundtrip", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--torch-settings", type=json.loads, default={}, help="PyTorch settings to compute under")
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
