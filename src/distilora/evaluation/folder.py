"""The folder of an evaluation: named after what was measured and how, and never shared by two different evaluations."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilora.artifact.format import Artifact
from distilora.artifact.shipped import is_shipped
from distilora.config.measuring import MeasureConfig
from distilora.errors import ConfigError, OutputError
from distilora.files.output import check_creatable
from distilora.progress import say

Identity = Mapping[str, Any]


def evaluation_identity(
    artifact: Artifact, config: MeasureConfig, source: str, split: str, digest: str, precision: str
) -> dict[str, Any]:
    """Collect everything the answers depend on: two evaluations with the same identity are the same evaluation.

    `digest` is that of the texts and labels, `precision` the backend's.
    """
    base = None
    if artifact.quantisation is not None:
        base = "full" if config.base == "full" else "4bit"
    files = json.dumps(artifact.files, sort_keys=True).encode()
    return {
        "model": hashlib.sha256(files).hexdigest(),
        "source": source,
        "split": split,
        "examples": digest,
        "backend": artifact.backend,
        "precision": precision,
        "base": base,
        "device": config.device,
        **({"lexicon": config.lexicon} if artifact.lexicon else {}),
    }


def check_output(config: MeasureConfig, artifact: Artifact | None = None) -> None:
    """Raise an error unless an evaluation may be written, to the folder given or beside the model; nothing is computed yet."""
    if config.output:
        _refuse_what_is_no_evaluation(Path(config.output))
    elif artifact is not None:
        check_creatable(evaluations_of(artifact))


def _refuse_what_is_no_evaluation(folder: Path) -> None:
    """Raise ConfigError unless `folder` is missing, empty, or holds an evaluation; OutputError if it cannot be written."""
    check_creatable(folder)
    if (folder / "run.yaml").exists() or (folder / "artifact.json").exists():
        raise ConfigError(f"output: {folder} holds a run or a model, not an evaluation; give another folder")
    if folder.exists() and any(folder.iterdir()) and _identity_in(folder) is None:
        raise ConfigError(f"output: {folder} holds files that do not belong to an evaluation; give another folder")


def choose_folder(config: MeasureConfig, evaluations: Path, data: str, identity: Identity) -> Path:
    """Choose the folder to write: `config.output`, else one in `evaluations` that no other evaluation occupies.

    Repeating an evaluation replaces its files, with a note. Raises ConfigError if `config.output` holds another evaluation.
    """
    if config.output:
        folder = Path(config.output)
        _refuse_what_is_no_evaluation(folder)
        former = _identity_in(folder)
        if former is not None and former != identity:
            raise ConfigError(
                f"output: {folder} holds another evaluation ({_difference(former, identity)}); give another folder"
            )
    else:
        parts = [data, identity["precision"], identity["base"], None if config.device == "auto" else config.device,
                 "encoder" if identity.get("lexicon") == "none" else None]  # fmt: skip
        name = "-".join(_plain(part) for part in parts if part)
        folder, number = evaluations / name, 1
        while folder.exists() and _identity_in(folder) != identity:
            number += 1
            folder = evaluations / f"{name}-{number}"
    if _identity_in(folder) is not None:
        say(f"note: {folder} holds the same evaluation already; it is written again")
    return folder


def run_of(artifact: Artifact) -> Path | None:
    """Return the folder of the run that a model lies in; None for an exported or merged model."""
    home = artifact.folder.parent
    return home if (home / "run.yaml").is_file() else None


def evaluations_of(artifact: Artifact) -> Path:
    """Return the folder of a model's evaluations: in its run, or beside a model without one, whose folder stays as it is.

    Those of a model that comes with distilora are in NAME-evaluations, where the command is started.
    """
    if is_shipped(artifact.folder):
        return Path(f"{artifact.folder.name}-evaluations")
    home = run_of(artifact)
    return home / "evaluations" if home else artifact.folder.with_name(f"{artifact.folder.name}-evaluations")


def make_folder(folder: Path) -> None:
    """Create the folder. Raises OutputError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output: {folder} cannot be created ({error.strerror}); give another --output") from None


def data_name(config: MeasureConfig, split: str) -> str:
    """Name the data in short: FILE for a single file, else SOURCE-SPLIT."""
    path = Path(config.data.path)
    if path.is_file() and not path.name.endswith((".tar.gz", ".tgz")):
        return path.stem
    name = (path.resolve().name if path.exists() else path.name) or "data"
    return "-".join(part for part in (re.sub(r"\.(tar\.gz|tgz)$", "", name), config.data.name, split) if part)


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"


def _identity_in(folder: Path) -> Identity | None:
    """Read the identity of the evaluation in a folder; {} if it predates identities, None if there is no evaluation."""
    try:
        summary = json.loads((folder / "metrics.json").read_text("utf-8"))
        return dict(summary.get("identity", {})) if {"evaluation", "checks"} & set(summary) else None
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def _difference(former: Identity, identity: Identity) -> str:
    if not former:
        return "of an earlier release, which did not record what it measured"
    names = [name for name in identity if former.get(name) != identity[name]]
    digests = {"model", "examples", "checks"}
    return ", ".join(f"other {name}" if name in digests else f"{name} {former.get(name)}" for name in names)
