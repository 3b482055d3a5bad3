"""Folders as `distilora evaluate` writes them, with answers that a test decides on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distilora.data.examples import text_digest
from distilora.files.tables import read_table, write_table


def write_evaluation(
    folder: Path, data: Path, labels: Sequence[str], probabilities: Sequence[Sequence[float]], **changes: Any
) -> str:
    """An evaluation of a classifier on a csv of texts and labels; `changes` replace parts of metrics.json."""
    records = list(read_table(data))
    rows: list[Mapping[str, Any]] = [
        {
            "split": data.stem,
            "place": record.place,
            "digest": text_digest([record.values["text"]]),
            "target": record.values["label"],
            "label": labels[max(range(len(labels)), key=lambda c: row[c])],
            "score": max(row),
            **{f"p_{label}": p for label, p in zip(labels, row, strict=True)},
            "tokens": 3,
            "truncated": False,
        }
        for record, row in zip(records, probabilities, strict=True)
    ]
    folder.mkdir()
    write_table(folder / "predictions.parquet", rows)
    summary = {
        "task": "classification",
        "notes": [],
        "reading": {
            "settings": {"labels": list(labels), "text_column": "text", "label_column": "label"},
            "cleaning": {"name": "html", "version": 1},
            "data": {"path": str(data), "split": "train", "name": None, "revision": None, "text_column": None,
                     "label_column": None, "separator": None, "strict": False},
        },
        "evaluation": {"split": data.stem, "labels": list(labels)},
        **changes,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(summary), "utf-8")
    return str(folder)
