"""Corpora for the cells of memory and scale: long reviews, and reviews with made-up labels."""

import json
from pathlib import Path

import pyarrow.parquet


def long_reviews(source: Path, file: Path, count: int = 160) -> Path:
    """Reviews of at least 300 words, so that each fills 256 tokens, classes in turn."""
    by_label: dict[int, list[str]] = {0: [], 1: []}
    for line in source.read_text("utf-8").splitlines():
        row = json.loads(line)
        if len(row["text"].split()) >= 300:
            by_label[row["label"]].append(row["text"])
    rows = [{"text": by_label[i % 2][i // 2], "label": i % 2} for i in range(count)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    return file


def made_up(corpus: str | None, source: Path, file: Path, count: int) -> Path:
    """The first `count` texts with labels in turn. Without a corpus the training reviews, again and again with a number."""
    if corpus:
        texts = pyarrow.parquet.read_table(corpus, columns=["text"])["text"].to_pylist()
    else:
        texts = [json.loads(line)["text"] for line in source.read_text("utf-8").splitlines()]
    with open(file, "w", encoding="utf-8") as stream:
        for i in range(count):
            again, place = divmod(i, len(texts))
            text = f"{again} {texts[place]}" if again else texts[place]
            stream.write(json.dumps({"text": text, "label": i % 2}) + "\n")
    return file
