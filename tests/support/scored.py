"""Scored tables, and what they hold."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from support.tiny import tiny_reviews

from distilora.scoring import score
from distilora.scoring.score import Scoring

TEXTS = [text for text, _ in tiny_reviews(130, 9)]


def run(finished: Path, source: object, out: object, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"precision": "fp32", "device": "cpu", "shard_rows": 50, **changes}
    return score.score(Scoring(str(finished), str(source), str(out), **settings))


def shards(out: Path, kind: str = "parquet") -> Iterator[dict[str, Any]]:
    """All rows, shard after shard."""
    for path in sorted(out.glob(f"shard-*.{kind}")):
        if kind == "parquet":
            yield from parquet.read_table(path).to_pylist()
        elif kind == "jsonl":
            yield from map(json.loads, path.read_text("utf-8").splitlines())
        else:
            with open(path, newline="", encoding="utf-8") as stream:
                yield from csv.DictReader(stream)


def rejects(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rejects.jsonl").read_text("utf-8").splitlines()]


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


BAD_CSV = (
    b'id,text,label\n1,"two\nlines, superb",pos\n2,only\n3,,pos\n4,   ,neg\n5,caf\xe9,pos\n6,"open, dull,neg\n'
    b'7,fine,pos\n\n9,"a ""quoted"" word",pos\n10,a,b,c\n11,"ab"c,neg\n12,last,neg\n'
)
