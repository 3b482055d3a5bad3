"""`distilora predict`: in pipes, into files that are there or cannot be written, and of a part of its input."""

import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.tiny import tiny_reviews, write_csv
from support.written import largest_file

from distilora import progress
from distilora.cli.main import main
from distilora.files.tables import read_table
from distilora.inference import table as table_prediction
from distilora.inference.predictor import Predictor, load

TEXTS = [text for text, _ in tiny_reviews(6, 9)]
Captured = pytest.CaptureFixture[str]
Feed = Callable[[bytes], None]


@pytest.fixture(autouse=True)
def loaded(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Predictor]:
    """The tiny predictor, loaded once for all."""
    predictor = _once.get(finished) or _once.setdefault(finished, load(finished, "fp32", "cpu"))
    monkeypatch.setattr("distilora.inference.predictor.load", lambda *words, **more: predictor)
    yield predictor
    progress.quiet(False)


_once: dict[Path, Predictor] = {}


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Feed:
    """Has standard input be a pipe with this in it."""

    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))

    return give


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_of_json_for_each_line_of_text(loaded: Predictor, feed: Feed, capsys: Captured) -> None:
    feed(("\n".join([*TEXTS[:3], "", *TEXTS[3:]]) + "\n").encode())
    assert main(["predict", "RUN", "--json"]) == 0
    out, err = capsys.readouterr()
    answers = rows(out)
    assert err == "standard output: 7 rows, 1 of them blank and without an answer\n"
    blank = answers.pop(3)
    assert blank == {"text": "", **dict.fromkeys(loaded(TEXTS[0]))}
    assert [row["text"] for row in answers] == TEXTS
    for row, answer in zip(answers, loaded(TEXTS), strict=True):
        assert row["label"] == answer["label"]
        assert row["score"] == pytest.approx(answer["score"], abs=1e-5)


def test_lines_are_answered_as_they_come(feed: Feed, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilora.inference.predictor.STREAM", 2)
    printed: list[int] = []

    class Lines(io.RawIOBase):
        left = 100

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:
            printed.append(len(sys.stdout.buffer.getvalue()))  # type: ignore[attr-defined]
            line = b"a superb film\n" if self.left else b""
            self.left -= bool(line)
            buffer[: len(line)] = line
            return len(line)

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Lines(), 16)))
    assert main(["--quiet", "predict", "RUN", "--json"]) == 0
    assert 0 < printed[20] < printed[60] < printed[-1]


def test_answers_for_people_from_a_pipe(loaded: Predictor, feed: Feed, capsys: Captured) -> None:
    feed(b"a superb film\n\na dull film\n")
    assert main(["predict", "RUN"]) == 0
    first, blank, last = capsys.readouterr().out.splitlines()
    assert blank == "(blank: no answer)"
    assert main(["predict", "RUN", "a superb film", "a dull film"]) == 0  # standard input or not
    assert capsys.readouterr().out.splitlines() == [first, last]


def test_a_table_through_a_pipe(feed: Feed, tmp_path: Path, capsys: Captured) -> None:
    source = write_csv(tmp_path / "in.csv", tiny_reviews(5))
    words = ["--quiet", "predict", "RUN", "--output", "-"]
    assert main([*words, "--input", str(source), "--output-format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0] == "text,label,predicted_label,score,p_neg,p_pos,truncated,abstain"
    assert len(out.splitlines()) == 6
    feed(source.read_bytes())
    assert main([*words, "--input-format", "csv", "--output-format", "tsv"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split("\t")[2] == "predicted_label"
    feed(json.dumps([{"text": text} for text in TEXTS]).encode())
    assert main([*words, "--input", "-", "--input-format", "json"]) == 0
    assert [row["text"] for row in rows(capsys.readouterr().out)] == TEXTS
    feed("\n".join(TEXTS).encode())
    assert main(["--quiet", "predict", "RUN", "--output", str(tmp_path / "out.csv")]) == 0
    assert [record.values["text"] for record in read_table(tmp_path / "out.csv")] == TEXTS


def test_a_part_of_the_input(feed: Feed, tmp_path: Path, capsys: Captured) -> None:
    source = write_csv(tmp_path / "in.csv", [*tiny_reviews(5), ("one cell too many", "a", "b")])  # type: ignore[list-item]
    for words, piped in (
        (["--input", str(source), "--json"], b""),
        (["--input-format", "csv", "--json"], source.read_bytes()),
        (["--json", *[text for text, _ in tiny_reviews(5)]], b""),
    ):
        feed(piped)
        assert main(["--quiet", "predict", "RUN", "--limit", "3", *words]) == 0
        assert [row["text"] for row in rows(capsys.readouterr().out)] == [text for text, _ in tiny_reviews(3)]


def test_a_separator_is_given(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "in.csv").write_text("id:text\n1:a superb film\n")
    assert main(["--quiet", "predict", "RUN", "--input", str(tmp_path / "in.csv"), "--json", "--separator", ":"]) == 0
    (row,) = rows(capsys.readouterr().out)
    assert (row["id"], row["text"]) == ("1", "a superb film")


@pytest.mark.parametrize(
    ("words", "piped", "line"),
    [
        ([], b"", "predict: give either texts (\"A fine film.\"), or --input FILE --output FILE, or texts on standard input"),
        (["a text", "--output", "x.csv"], b"", "--output: goes with --input or standard input; with texts, use --json"),
        (["--json", "--output", "x.csv"], b"a", "--json: prints, --output writes; give one of them"),
        (["--json", "--output-format", "csv"], b"a", "--json: given with --output-format csv; give one of them"),
        (["--output", "x.csv", "--output-format", "csv"], b"a", "--output-format: goes with --output -; a file's name"),
        (["--limit", "0"], b"a", "--limit: 0 given, at least 1 wanted"),
        (["--separator", ";"], b"a", "--separator: given, but standard input is txt, which has none; drop it"),
        (["--input-format", "csv", "--separator", "ab"], b"a", "--separator: 'ab' given, one character such as"),
        (["--json", "--strict"], b"fine\n\n", "standard input: row 2: the text is blank; fill it, or drop --strict"),
        (["--input-format", "jsonl"], b"fine\n", "standard input: row 1: not JSON"),
    ],
)  # fmt: skip
def test_what_contradicts(words: list[str], piped: bytes, line: str, feed: Feed, capsys: Captured) -> None:
    feed(piped)
    assert main(["predict", "RUN", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"distilora: {line}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_a_file_that_is_there_is_not_overwritten_unasked(
    command: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = (
        write_csv(tmp_path / "in.csv", tiny_reviews(3)),
        tmp_path / ("o.csv" if command == "predict" else "o.json"),
    )
    output.write_text("precious")
    words = ["--quiet", command, "RUN", "--output", str(output)]
    words += ["--input", str(source)] if command == "predict" else ["a superb film"]
    with monkeypatch.context() as patch:
        patch.setattr("distilora.inference.predictor.load", None)  # it is refused before
        assert main(words) == 2
    line = f"distilora: --output: {output} exists already; give another name, or --overwrite\n"
    assert capsys.readouterr() == ("", line)
    assert output.read_text() == "precious"
    assert main([*words, "--overwrite"]) == 0
    assert "superb" in output.read_text() or "score" in output.read_text()


def test_an_output_that_no_file_can_be_in(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_csv(tmp_path / "in.csv", tiny_reviews(3))
    words = ["--quiet", "predict", "RUN", "--overwrite", "--input", str(source), "--output"]
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.setattr("distilora.inference.predictor.load", None)
    assert main([*words, str(tmp_path / "folder.csv")]) == 2
    assert capsys.readouterr().err.endswith("folder.csv is a folder; give the name of a file\n")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # of root, only a read-only disk says so
    assert main([*words, str(tmp_path / "o.csv")]) == 2
    line = (
        f"--output: {tmp_path / 'o.csv'} cannot be written (its folder is read-only, or not yours); give another file"
    )
    assert capsys.readouterr().err == f"distilora: {line}\n"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_output_larger_than_a_file_may_be(kind: str, tmp_path: Path, capsys: Captured) -> None:
    source, output = write_csv(tmp_path / "in.csv", tiny_reviews(200)), tmp_path / f"o.{kind}"
    with largest_file(2000):
        assert main(["--quiet", "predict", "RUN", "--input", str(source), "--output", str(output)]) == 2
    line = f"--output: {output} cannot be written (File too large); raise the limit of file sizes (ulimit -f), or give another file"
    assert capsys.readouterr() == ("", f"distilora: {line}\n")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "No space left on device); make room, or give another file"),
        (errno.EROFS, "Read-only file system); give another file"),
        (errno.EACCES, "Permission denied); check its permissions, or give another file"),
    ],
)
def test_a_disk_that_does_not_take_it(
    number: int, said: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = write_csv(tmp_path / "in.csv", tiny_reviews(3)), tmp_path / "o.csv"

    def refuse(*names: object) -> None:
        raise OSError(number, os.strerror(number))

    for owner, name in ((table_prediction.TableWriter, "_open"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, refuse)
            assert main(["--quiet", "predict", "RUN", "--input", str(source), "--output", str(output)]) == 2
        assert capsys.readouterr() == ("", f"distilora: --output: {output} cannot be written ({said}\n")
        assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("words", [["a superb film"], ["--input", "IN", "--output", "-"]])
def test_standard_output_on_a_full_disk(
    words: list[str], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_csv(tmp_path / "in.csv", tiny_reviews(200))
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main(["--quiet", "predict", "RUN", *(str(source) if word == "IN" else word for word in words)]) == 2
    line = "distilora: standard output: No space left on device; send it to another place\n"
    assert capsys.readouterr().err == line


def test_an_error_elsewhere_is_not_blamed_on_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/some/cache")

    monkeypatch.setattr("distilora.inference.predictor.load", full)
    with pytest.raises(OSError, match="/some/cache"):
        main(["--quiet", "predict", "RUN", "a text"])


def test_a_reader_that_goes_away(feed: Feed, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    feed(b"a superb film\n")
    with open(writing, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        assert main(["--quiet", "predict", "RUN", "--json"]) == 141
    assert capsys.readouterr().err == ""
