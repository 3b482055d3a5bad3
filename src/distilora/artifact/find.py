"""Finds the model that `load` names: a run, an exported folder, one that comes with distilora, a Transformers classifier, or one
of these on the Hub.

A Transformers folder without artifact.json records neither cleaning nor temperature: its texts are read as they are and
its probabilities are not calibrated. A note says so.
"""

import json
import shlex
from pathlib import Path
from typing import Any

from distilora.artifact.format import Artifact, model_folder, read_artifact
from distilora.artifact.shipped import shipped_folder
from distilora.errors import ArtifactError, MissingExtra
from distilora.files.atomic import sha256
from distilora.files.hub import is_hub_name
from distilora.model.encoders.families import architecture
from distilora.progress import say, warn
from distilora.tasks.registry import builtin_tasks

_FILES = ["*.json", "*.safetensors", "*.onnx", "openvino_model*", "*.npz"]


def find_model(name: str | Path) -> Artifact:
    """Find the artifact of a folder or Hub model.

    Raises ArtifactError if there is none, or if it is damaged or not a classifier, EncoderError if its family is not supported,
    MissingExtra without huggingface_hub.
    """
    if not isinstance(name, str | Path):
        raise ArtifactError(
            f"model: {type(name).__name__} given; give the folder of a run or model, or a name on the Hub"
        )
    folder = shipped_folder(name) or Path(name).expanduser()
    if not folder.exists() and isinstance(name, str) and is_hub_name(name):
        folder = _from_hub(name)
    if (folder / "config.json").is_file() and not any(
        (f / "artifact.json").is_file() for f in (folder, folder / "model")
    ):
        return _plain(folder, str(name))
    if (folder / "model" / "artifact.json").is_file() and not (folder / "metrics.json").is_file():
        warn(f"{folder}: this run is not finished; finish it with: distilora train --resume {shlex.quote(str(folder))}")
    return read_artifact(model_folder(folder))


def _from_hub(name: str) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtra(error.name or "huggingface_hub", "train") from None
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # without a network several HTTP libraries raise their own errors
        raise ArtifactError(
            f"{name}: no such run or folder, and neither the Hub nor its local cache provides it ({type(error).__name__}); "
            "check the name"
        ) from None


def _plain(folder: Path, name: str) -> Artifact:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        task = next((task for kind in builtin_tasks() if (task := kind.from_transformers(config, name))), None)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ArtifactError(f"{name}: config.json is damaged ({error}); copy the model again") from None
    if "auto_map" in config:
        raise ArtifactError(f"{name}: needs code of its own, which is never run; give another model")
    if task is None:
        raise ArtifactError(
            f"{name}: holds {_described(config)}, which is not a text classifier; train one on it with: "
            f"distilora train --encoder.name {shlex.quote(name)}"
        )
    if not isinstance(config.get("model_type"), str):
        raise ArtifactError(f"{name}: config.json is damaged (it names no model_type); copy the model again")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "tokenizer.json").is_file():
        missing = "tokenizer.json" if weights else "safetensors weights (pickled ones are never read)"
        raise ArtifactError(f"{name}: has no {missing}; write it again with save_pretrained")
    say(f"note: {name} has no artifact.json: texts are read uncleaned, and probabilities are not calibrated")
    return Artifact(
        task={"name": task.name, "settings": dict(task.settings)},
        cleaning={"name": "none", "version": 1},
        max_length=_max_length(folder, config),
        encoder={"name": name, "source": "transformers", "revision": None, "architecture": config["model_type"],
                 "sha256": sha256(weights[0])},
        method="full", weights="merged", precision="fp32", attention="packed", token_budget=2048, folder=folder,
    )  # fmt: skip


def _described(config: dict[str, Any]) -> str:
    """Describe a model that is not a classifier, by its config.json."""
    if config.get("architectures"):
        return ", ".join(map(str, config["architectures"]))
    family = config.get("model_type")
    return f"an encoder of the family {family}, without a head" if family else "a model that config.json does not name"


def _max_length(folder: Path, config: dict[str, Any]) -> int:
    positions = int(config.get("max_position_embeddings", 512))
    positions -= architecture(config["model_type"]).reserved_positions
    try:
        length = int(json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["model_max_length"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return positions
    return min(length, positions)
