"""Texts to answer, and tables of them before and after."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as parquet
from support.tiny import tiny_reviews

from distilora.files.tables import write_table

TEXTS = [text for text, _ in tiny_reviews(40, 5)]


def table(kind: str, folder: Path, texts: list[str | None], column: str = "text") -> Path:
    """A table of texts with an id, and a column that the answers have, too."""
    path = folder / f"in.{kind}"
    write_table(path, [{"id": i, column: text, "score": i / 2} for i, text in enumerate(texts)])
    return path


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ","))
