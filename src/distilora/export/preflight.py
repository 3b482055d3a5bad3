"""Checks of an export that need no torch, so that an impossible one is refused at once."""

import importlib.util
from pathlib import Path
from typing import Literal, get_args

from distilora.artifact.format import Artifact, read_artifact
from distilora.errors import ArtifactError, ConfigError, MissingExtra
from distilora.files.output import check_creatable
from distilora.tasks.registry import restore

Form = Literal["merged", "onnx", "onnx-int8", "openvino", "transformersjs"]


def check_export(run: str | Path, to: Form, output: str | Path) -> Artifact:
    """Return the artifact of a run that can be exported to the form `to`, in a new folder `output`.

    Raises ConfigError if there is no such form, ArtifactError if the run's model is damaged or already exported, or if
    `output` exists, MissingExtra if a package for the form is missing.
    """
    if to not in get_args(Form):
        raise ConfigError(f"to: {to!r} given, {', '.join(get_args(Form))} wanted")
    output = Path(output)
    if output.exists() or output.is_symlink():
        raise ArtifactError(f"--output: {output} exists already; give another folder")
    check_creatable(output, "--output")
    artifact = read_artifact(run)
    if artifact.backend != "torch" or (artifact.weights == "merged" and to == "merged"):
        raise ArtifactError(f"{run}: is exported already; copy it, or export the run that it came from")
    task = restore(artifact.task["name"], artifact.task["settings"])
    if to == "transformersjs" and (task.finished or task.output_kind == "tokens"):
        raise ArtifactError(
            f"--to: Transformers.js answers with a softmax of the logits, which the answers of task {task.name} are not; use onnx"
        )
    if to != "merged":
        if task.output_kind == "other":
            raise ArtifactError(
                f"--to: {to} given, but a graph cannot compute the answers of task {task.name}; use merged"
            )
        engine = "openvino" if to == "openvino" else "onnxruntime"
        for package in ("onnx", "onnxscript", engine):
            if importlib.util.find_spec(package) is None:
                raise MissingExtra(package, "export,openvino" if to == "openvino" else "export")
    return artifact
