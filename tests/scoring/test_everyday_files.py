"""Everyday files are scored as they are predicted: compressed, JSON arrays, workbooks, other separators."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tables import PACKERS, read, workbook, written
from support.tiny import tiny_reviews, write_csv

from distilora import progress
from distilora.cli.main import main
from distilora.errors import DataError
from distilora.files.tables import write_table
from distilora.scoring.shards import make_plan
from distilora.tasks.classification import Classification


@pytest.mark.parametrize("name", ["r.csv.gz", "r.jsonl.zst", "r.json", "r.xlsx", "semicolons.csv"])
def test_every_kind_is_scored_as_it_is_predicted(name: str, finished: Path, tmp_path: Path) -> None:
    texts = [text for text, _ in tiny_reviews(7, 3)]
    path = tmp_path / name
    if name == "r.xlsx":
        workbook(path, ["n", "text"], *([n, text] for n, text in enumerate(texts)))
    elif name == "r.json":
        path.write_text(json.dumps([{"n": n, "text": text} for n, text in enumerate(texts)]))
    elif name == "semicolons.csv":
        path.write_text("n;text\n" + "".join(f"{n};{text}, yes\n" for n, text in enumerate(texts)))
        texts = [f"{text}, yes" for text in texts]
    elif name == "r.csv.gz":
        write_csv(tmp_path / "r.csv", [(str(n), text) for n, text in enumerate(texts)], ("n", "text"))
        path.write_bytes(gzip.compress((tmp_path / "r.csv").read_bytes()))
    else:
        data = "".join(json.dumps({"n": n, "text": text}) + "\n" for n, text in enumerate(texts)).encode()
        path.write_bytes(PACKERS[".zst"](data))
    output, common = tmp_path / "out", ["--precision", "fp32", "--device", "cpu"]
    try:
        assert (
            main(["--quiet", "predict", str(finished), "--input", str(path), "--output", f"{output}.jsonl", *common])
            == 0
        )
        words = ["score", str(finished), str(path), "--output", str(output), "--shard-rows", "3", *common]
        assert main(["--quiet", *words]) == 0
    finally:
        progress.quiet(False)
    predicted = read(Path(f"{output}.jsonl"))
    scored = [row for shard in sorted(output.glob("shard-*")) for row in read(shard)]
    assert [row["text"] for row in predicted] == texts
    assert [(int(row["n"]), row["label"]) for row in scored] == [(n, row["label"]) for n, row in enumerate(predicted)]
    assert [row["text"] for row in scored] == texts
    assert len(list(output.glob("shard-*"))) == 3


def test_a_row_that_cannot_be_read_and_numbers_that_are_none(finished: Path, tmp_path: Path) -> None:
    texts = [text for text, _ in tiny_reviews(4, 3)]
    when = pa.array([0, 10**7, 1, 2], pa.int32()).cast(pa.date32())
    table = pa.table({"text": [*texts[:3], " "], "when": when, "x": [float("nan"), 1.0, float("inf"), float("nan")]})
    pq.write_table(table, tmp_path / "in.parquet")
    words = [
        "score",
        str(finished),
        str(tmp_path / "in.parquet"),
        "--output",
        str(tmp_path / "out"),
        "--format",
        "jsonl",
    ]
    try:
        assert main(["--quiet", *words, "--device", "cpu"]) == 0
    finally:
        progress.quiet(False)
    strict = json.JSONDecoder(parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    lines = (tmp_path / "out" / "shard-00000.jsonl").read_text().splitlines()
    assert [(row["text"], row["x"]) for row in map(strict.decode, lines)] == [(texts[0], None), (texts[2], None)]
    far, blank = map(strict.decode, (tmp_path / "out" / "rejects.jsonl").read_text().splitlines())
    assert (far["row"], far["reason"][:38]) == (2, "column 'when': its date32[day] cannot ")
    assert (blank["row"], blank["values"]["x"]) == (4, None)


def test_scoring_with_a_separator_given(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [text for text, _ in tiny_reviews(5, 3)]
    path = written(
        tmp_path / "in.csv", "".join(["n:text\n", *(f"{n}:{text}\n" for n, text in enumerate(texts))]).encode()
    )
    words = [
        "score",
        str(finished),
        str(path),
        "--output",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--shard-rows",
        "2",
    ]
    try:
        assert main(["--quiet", *words, "--separator", ":"]) == 0
        assert main(["--quiet", *words]) == 2
    finally:
        progress.quiet(False)
    assert "was begun with --separator :, now without --separator" in capsys.readouterr().err
    rows = [row for shard in sorted((tmp_path / "out").glob("shard-*")) for row in read(shard)]
    assert [(row["n"], row["text"]) for row in rows] == [(str(n), text) for n, text in enumerate(texts)]
    write_table(tmp_path / "in.jsonl", [{"text": "a"}])
    with pytest.raises(DataError, match=r"^--separator: given, but .* holds no csv or tsv file; drop it"):
        make_plan(str(tmp_path / "in.jsonl"), Classification(("neg", "pos"), "text", None), None, 10, separator=";")


def test_json_text_in_a_cell_is_json(finished: Path, tmp_path: Path) -> None:
    written(
        tmp_path / "in.jsonl",
        b'{"text": "a superb film", "x": [NaN, 1]}\n{"text": "a dull film", "x": {"y": Infinity}}\n',
    )
    words = ["score", str(finished), str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out"), "--format", "csv"]
    try:
        assert main(["--quiet", *words, "--device", "cpu"]) == 0
    finally:
        progress.quiet(False)
    assert [row["x"] for row in read(tmp_path / "out" / "shard-00000.csv")] == ["[null, 1]", '{"y": null}']
