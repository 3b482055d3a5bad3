"""Reads and writes the artifact, `runs/NAME/model/`: all that prediction needs besides the encoder it names.

artifact.json     schema version, task, cleaning, max length, truncation side, encoder, weights, precision, temperature, checksums
                  of the files and, in `checksum`, of itself
tokenizer.json    with its truncation, unless that is in the middle
check.npz         check texts and the encoder's outputs for them, for the round trip
lexicon/          n-gram expert, safetensors, where there is one
scores.npz        scores of held-out answers, by which a threshold of abstention is chosen; models of a task without scores,
                  and those of earlier releases, have none

and one of:

adapter/, delta/  the trained weights, in the method's form (model/adapters/saved.py)
*.safetensors     a complete Transformers model (`export --to merged`)
*.onnx            a complete model as a graph (`export --to onnx` and the like)
openvino_model*   the same for OpenVINO (`export --to openvino`)
"""

import dataclasses
import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from distilora.artifact.check import Check, pack_check
from distilora.artifact.shipped import shipped_folder, shipped_names
from distilora.config.schema import MethodName, TruncationSide
from distilora.errors import ArtifactError
from distilora.files.atomic import replacing_folder, sha256
from distilora.hardware import InferencePrecision
from distilora.model.adapters.saved import SAVED_FORMS, Saved

SCHEMA = 5
# and the fields that an older schema lacks; `checksum` came with 4
READABLE = {
    2: {"parity", "truncation_side", "lexicon"}, 3: {"truncation_side", "lexicon"}, 4: {"truncation_side", "lexicon"}, 5: set(),
}  # fmt: skip
WEIGHTS: dict[str, str] = {  # glob pattern of the only files that weights are loaded from
    **{name: form.file for name, form in SAVED_FORMS.items()},
    "merged": "*.safetensors",
    "onnx": "*.onnx",
    "openvino": "openvino_model*.xml",
}


@dataclass(frozen=True)
class Artifact:
    """Content of artifact.json; `folder`, where it was read from, is not stored."""

    task: dict[str, Any]  # {"name": ..., "settings": {...}}
    cleaning: dict[str, Any]  # {"name": ..., "version": ...}
    max_length: int
    encoder: dict[str, Any]  # name, source, revision, architecture, sha256
    method: MethodName
    weights: Literal[Saved, "merged", "onnx", "openvino"]
    precision: InferencePrecision  # of the run, or the default of an export: check.npz's `outputs` were computed in it
    attention: str  # kernel of the run
    token_budget: int  # of the micro-batches behind check.npz
    truncation_side: TruncationSide | None = None  # None: as tokenizer.json has it (schema 2 to 4, foreign models)
    temperature: float = 1.0
    quantisation: dict[str, Any] | None = None  # of the base the adapter was trained on
    agreement: dict[str, Any] = dataclasses.field(default_factory=dict)  # with the run's own labels or outputs, by base
    # of an export with the fp32 original (export/parity.py)
    parity: dict[str, Any] = dataclasses.field(default_factory=dict)
    # the n-gram expert in lexicon/ (lexicon/format.py): its kind and the weights of both views; {}: none
    lexicon: dict[str, Any] = dataclasses.field(default_factory=dict)
    distilora: str = ""  # version that wrote it
    schema: int = SCHEMA
    files: dict[str, str] = dataclasses.field(default_factory=dict)  # path -> SHA-256
    folder: Path = dataclasses.field(default=Path(), compare=False)

    @property
    def backend(self) -> Literal["torch", "onnx", "openvino"]:
        """What computes the model: a graph has an engine of its own, all other weights PyTorch."""
        return self.weights if self.weights in ("onnx", "openvino") else "torch"


def model_folder(path: str | Path) -> Path:
    """Return the model folder of a run's folder or of a model that comes with distilora, or the folder itself if it is one.

    Raises ArtifactError if it is none of these.
    """
    path = shipped_folder(path) or Path(path)
    for folder in (path / "model", path):
        if (folder / "artifact.json").is_file():
            return folder
    if not path.exists():
        ready = "".join(f", or give {name}, which comes with distilora" for name in shipped_names())
        raise ArtifactError(f"{path}: no such run; train one with: distilora train recipes/imdb-embedded.yaml{ready}")
    if (path / "checkpoints").is_dir():
        raise ArtifactError(
            f"{path}: this run is not finished; continue it with: distilora train --resume {shlex.quote(str(path))}"
        )
    raise ArtifactError(f"{path}: no artifact.json here; give the folder of a finished run, or its model/")


def read_artifact(path: str | Path) -> Artifact:
    """Read artifact.json of a run or model folder; verify its checksum and every file's.

    Raises ArtifactError if something is missing, damaged, outside the folder, or of a schema this release does not read.
    """
    folder = model_folder(path)
    try:
        fields = json.loads((folder / "artifact.json").read_text("utf-8"))
        schema = fields["schema"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{folder}/artifact.json: damaged ({error}); copy the model again") from None
    if not isinstance(schema, int) or schema not in READABLE:
        readable = ", ".join(map(str, READABLE))
        raise ArtifactError(
            f"{folder}: schema {schema}, but this release reads {readable}; use the distilora that wrote it, or train again"
        )
    if schema >= 4 and fields.pop("checksum", None) != _checksum(fields):
        raise ArtifactError(
            f"{folder}/artifact.json: changed since it was written (its checksum differs); copy the model again"
        )
    names = {field.name for field in dataclasses.fields(Artifact)} - {"folder"}
    if set(fields) | READABLE[schema] != names:
        raise ArtifactError(
            f"{folder}/artifact.json: fields {sorted((set(fields) | READABLE[schema]) ^ names)} are missing or unknown; "
            "copy the model again"
        )
    required = {"files": set(), "task": {"name", "settings"}, "cleaning": {"name", "version"}}
    required["encoder"] = {"name", "source", "revision", "architecture", "sha256"}
    for name, keys in required.items():
        if not isinstance(fields[name], dict) or not keys <= set(fields[name]):
            raise ArtifactError(f"{folder}/artifact.json: damaged ({name}); copy the model again")
    artifact = Artifact(**fields, folder=folder)
    if artifact.truncation_side not in (None, *get_args(TruncationSide)):
        raise ArtifactError(f"{folder}/artifact.json: damaged (truncation_side); copy the model again")
    _check_names(folder, artifact.files)
    for name, checksum in artifact.files.items():
        file = folder / name
        if not file.is_file():
            raise ArtifactError(f"{file}: missing; copy the whole model folder")
        if sha256(file) != checksum:
            raise ArtifactError(f"{file}: changed since it was written (SHA-256 differs); copy the model again")
    if artifact.weights not in WEIGHTS:
        raise ArtifactError(f"{folder}/artifact.json: damaged (weights); copy the model again")
    pattern = WEIGHTS[artifact.weights]
    if not any(fnmatchcase(name, pattern) for name in artifact.files):
        raise ArtifactError(f"{folder}: has no {pattern}, and weights are read from nothing else; copy the model again")
    return artifact


def sealed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an artifact.json with the `checksum` of all the others."""
    others = {name: value for name, value in fields.items() if name != "checksum"}
    return {**others, "checksum": _checksum(others)}


def _checksum(fields: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the fields as JSON without spaces, keys sorted, in ASCII."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _check_names(folder: Path, names: Iterable[str]) -> None:
    """Raise ArtifactError for a name that may lead out of the folder, on this or another system."""
    home = folder.resolve()
    # in the Hub's local cache, snapshots/COMMIT/NAME is a link to a file in blobs/
    homes = [home, *(parent.parent / "blobs" for parent in home.parents if parent.name == "snapshots")]
    for name in names:
        plain = not any(character in name for character in "\\:\0") and all(
            part not in ("", ".", "..") for part in name.split("/")
        )
        try:
            target = (folder / name).resolve() if plain else None
            (folder / name).exists()
        except (OSError, RuntimeError, ValueError):  # too long, a link to itself, no UTF-8
            target = None
        if target is None or not any(target.is_relative_to(allowed) for allowed in homes):
            raise ArtifactError(
                f"{folder}/artifact.json: files: {name!r} does not lie in the model's folder; do not trust this model"
            )


def write_artifact(folder: Path, artifact: Artifact, write_files: Callable[[Path], None], check: Check) -> Artifact:
    """Write a model folder under a temporary name, then move it to `folder`.

    `write_files(folder)` writes tokenizer.json and the weights; check.npz, artifact.json and the checksums are added here.
    """
    with replacing_folder(folder) as temporary:
        write_files(temporary)
        (temporary / "check.npz").write_bytes(pack_check(check))
        files = {
            file.relative_to(temporary).as_posix(): sha256(file)
            for file in sorted(temporary.rglob("*"))
            if file.is_file()
        }
        written = dataclasses.replace(artifact, files=files, folder=folder, schema=SCHEMA)
        fields = {f.name: getattr(written, f.name) for f in dataclasses.fields(written) if f.name != "folder"}
        (temporary / "artifact.json").write_text(
            json.dumps(sealed(fields), indent=2, ensure_ascii=False) + "\n", "utf-8"
        )
        if folder.exists():
            shutil.rmtree(folder)
    return written
