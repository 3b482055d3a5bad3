"""Carries a model's folder to another machine, as the bytes of its files."""

from collections.abc import Mapping
from pathlib import Path

from distilora.artifact.format import Artifact


def packed(artifact: Artifact) -> dict[str, bytes]:
    """Return the files of a model's folder, by their names in it."""
    return {name: (artifact.folder / name).read_bytes() for name in ["artifact.json", *artifact.files]}


def unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
