"""The folder of a learning curve: its settings, its finished sizes; a restart with the same settings goes on where it was.

settings.json   settings, and digests of encoder and data: what every size has in common
sizes/N.json    measurement on N labels, written when it is complete
training/N/     folder of the run that trains on N labels, until it is measured
curve.json      all sizes together, rewritten after each
curve.html      the same for people
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distilora.config.parse import to_tree
from distilora.config.schema import RunConfig
from distilora.errors import ConfigError, OutputError
from distilora.files.atomic import write_json
from distilora.files.full_disk import writing
from distilora.files.locks import LOCK, hold, let_go

SETTINGS = "settings.json"
ALL = "all"
SIZES: tuple[int | str, ...] = (100, 300, 1_000, 3_000, 10_000, 25_000, ALL)
UPDATES = 200  # least of a training: three epochs of few examples are too few (Zhang et al. 2021, arXiv 2006.05987)
_FREE = ("output", "training.threads", "training.tracker", "training.checkpoint_every")  # may change in between


def curve_config(config: RunConfig, folder: Path) -> RunConfig:
    """Return the settings of a curve's runs, but for what depends on the size.

    A curve is there to choose by, so it never reads a test split: held-out examples are carved out of the training split,
    unless the settings say that there are none. Raises ConfigError for settings that a curve has no use for.
    """
    if config.data.unlabelled is not None:
        raise ConfigError("data.unlabelled: given, but a learning curve trains on labels alone; drop it")
    without = config.data.test_split == "none" or not config.data.heldout
    data = replace(config.data, test_path=None, test_split="none" if without else "heldout")
    training = replace(config.training, tracker="none")
    return replace(config, output=str(folder / "training"), data=data, training=training)


def check_folder(folder: Path, updates: int) -> None:
    """Raise ConfigError if no curve may be written to `folder`, or for a wrong number of updates."""
    if updates < 1:
        raise ConfigError(f"--updates: {updates} given, at least 1 wanted")
    if not folder.exists() or (folder / SETTINGS).is_file():
        return
    if not folder.is_dir():
        raise ConfigError(f"output: {folder} is a file; give another folder")
    if any(path.name != LOCK for path in folder.iterdir()):
        raise ConfigError(f"output: {folder} is not empty and holds no learning curve; give another --output")


def sizes_of(wanted: tuple[int | str, ...], labels: int, classes: int) -> list[int]:
    """Return the sizes that the data allow, in order: those above their number of labels become all of them.

    Raises ConfigError for a size that has no room for an example of each class.
    """
    sizes = sorted({labels if size == ALL else min(int(size), labels) for size in wanted})
    if sizes[0] < classes:
        raise ConfigError(
            f"--sizes: {sizes[0]} given, but there are {classes} classes to train on; give {classes} or more"
        )
    return sizes


@contextmanager
def writing_curve(folder: Path, identity: Mapping[str, Any]) -> Iterator[None]:
    """Hold the folder for the curve that `identity` describes.

    Raises ConfigError if it holds another one, OutputError if another process writes it or the disk is full.
    """
    try:
        (folder / "sizes").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output: {folder} cannot be created ({error.strerror}); give another --output") from None
    hold(folder)
    try:
        with writing(folder, "give the same command again"):
            _claim(folder, identity)
            yield
    finally:
        let_go(folder)


def identity_of(config: RunConfig, updates: int, digests: Mapping[str, str]) -> dict[str, Any]:
    """Describe what all sizes of a curve have in common; `digests` are those of its encoder and data."""
    settings = {name: value for name, value in _flat(to_tree(config)).items() if name not in _FREE}
    return {"settings": {**settings, "updates": updates}, "digests": dict(digests)}


def finished(folder: Path) -> dict[int, dict[str, Any]]:
    """Read the sizes that are finished, in order."""
    rows = [json.loads(path.read_text("utf-8")) for path in (folder / "sizes").glob("*.json")]
    return {row["size"]: row for row in sorted(rows, key=lambda row: int(row["size"]))}


def write_size(folder: Path, row: Mapping[str, Any]) -> None:
    """Write a finished size."""
    write_json(folder / "sizes" / f"{row['size']}.json", row)


def _claim(folder: Path, identity: Mapping[str, Any]) -> None:
    file = folder / SETTINGS
    if not file.is_file():
        write_json(file, identity)
        return
    try:
        before = json.loads(file.read_text("utf-8"))
        settings, digests = before["settings"], before["digests"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"output: {file} is damaged; give another --output") from None
    now = json.loads(json.dumps(identity["settings"]))  # lists for tuples
    changed = [
        f"{name} {settings.get(name)}, here {value}" for name, value in now.items() if settings.get(name) != value
    ]
    changed += [f"another {name}" for name, value in identity["digests"].items() if digests.get(name) != value]
    if changed:
        more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ConfigError(
            f"output: {folder} holds a curve of other settings ({'; '.join(changed[:3])}{more}); give another --output, or "
            "those settings"
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
