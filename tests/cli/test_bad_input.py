"""Whatever is wrong with the input, the command says so in one line, leaves with 2, and leaves nothing behind."""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tables import written
from support.tiny import tiny_reviews, write_csv

from distilora import progress
from distilora.cli.main import main

Run = Callable[..., str]
ROWS = tiny_reviews(40)


@pytest.fixture(autouse=True)
def loud_again() -> Iterator[None]:
    yield
    progress.quiet(False)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must be refused; gives its line, without 'distilora: '."""

    def run(*words: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        code = main(["--quiet", *map(str, words)])
        out, err = capsys.readouterr()
        assert code == 2
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("distilora: ")
        assert sorted(tmp_path.rglob("*")) == before
        return err.removeprefix("distilora: ").rstrip("\n")

    return run


@pytest.fixture
def commands(tmp_path: Path, encoder: Path, finished: Path) -> dict[str, Callable[[Path], list[object]]]:
    """The three commands that read data, as words for a file."""
    out = tmp_path / "out"
    return {
        "train": lambda p: ["train", "--output", out, "--encoder.name", encoder, "--data.max_length", 64,
                            "--training.precision", "fp32", "--training.device", "cpu", "--data.path", p],
        "evaluate": lambda p: ["evaluate", finished, "--output", out, "--data.path", p],
        "predict": lambda p: ["predict", finished, "--output", f"{out}.csv", "--input", p],
    }  # fmt: skip


def table(*rows: tuple[str, str], columns: tuple[str, ...] = ("text", "label")) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows([columns, *ROWS, *rows])
    return stream.getvalue().encode()


def jsonl(*rows: object) -> bytes:
    records = [{"text": text, "label": label} for text, label in ROWS]
    return "".join(json.dumps(row) + "\n" for row in (*records, *rows)).encode()


def parquet(**more: list[object]) -> bytes:
    stream = io.BytesIO()
    columns = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
    pq.write_table(pa.table({name: values + more.get(name, []) for name, values in columns.items()}), stream)
    return stream.getvalue()


ALL, LABELLED = ("train", "evaluate", "predict"), ("train", "evaluate")
FILES: dict[str, tuple[str, bytes, tuple[str, ...], list[str]]] = {  # name, content, commands, parts of the line
    "empty": ("r.csv", b"", ALL, ["r.csv: the file is empty; give one with records"]),
    "a header only": ("r.csv", b"text,label\n", ALL, ["r.csv", "no records; give "]),
    "no header": ("r.csv", b"\n\n", ALL, ["r.csv: no header; the first line must name the columns"]),
    "no text column": ("r.csv", table(columns=("a", "label")), ALL,
                       ["text", "column: no column called text, ", "(columns: a, label); name one with --"]),
    "no label column": ("r.csv", table(columns=("text", "b")), LABELLED,
                        ["data.label_column: no column ", "(columns: text, b); name one with --data.label_column"]),
    "not UTF-8": ("r.csv", table() + "caf\u00e9,pos\n".encode("latin-1"), ALL,
                  ["r.csv: line 42: byte 4 is not UTF-8; convert the file"]),
    "a ragged row": ("r.csv", table() + b"fine, really,pos\n", ALL,
                     ["r.csv: row 41: 3 cells under 2 columns; quote cells"]),
    "an open quote": ("r.csv", table() + b'"fine,pos\n', ALL, ["r.csv: row 41: ", "; check its quotes"]),
    "two columns alike": ("r.csv", b"text,text\na,pos\n", ALL, ["r.csv: two columns called 'text'; rename one"]),
    "not JSON": ("r.jsonl", jsonl() + b'{"text"\n', ALL, ["r.jsonl: row 41: not JSON", "; each line must hold one object"]),
    "JSON of another kind": ("r.jsonl", jsonl(["fine"]), ALL, ["r.jsonl: row 41: list found; each line must"]),
    "half a character": ("r.jsonl", jsonl() + b'{"text": "\\ud83c", "label": "pos"}\n', ALL,
                         ["r.jsonl: row 41: a text holds half a character", "; correct it"]),
    "a text that is a number": ("r.jsonl", jsonl({"text": 5, "label": "pos"}), ALL,
                                ["r.jsonl: row 41: data.text_column: 'text' holds int, not text; name another"]),
    "a broken parquet": ("r.parquet", parquet()[:-50], ALL, ["r.parquet: broken parquet (", "; write the file again"]),
    "another kind of file": ("r.pdf", b"%PDF", ALL, ["r.pdf: unknown kind of file; give "]),
    "a broken archive": ("r.tar.gz", b"\x1f\x8b\x08 cut", LABELLED, ["r.tar.gz: broken archive (", "; download it again"]),
    "a label not seen": ("r.csv", table(("fine", "meh")), ("evaluate",),
                         ["r.csv: row 41: data.label_column: label 'meh' was not seen in training (labels: neg, pos); correct it"]),
    "UTF-16": ("r.csv", table().decode().encode("utf-16"), ("train", "predict"),
               ["r.csv: it is UTF-16; convert the file with iconv -f utf-16 -t utf-8, or save it as UTF-8"]),
    "numbers for labels": ("r.csv", b"text,label\n" + b"".join(b"text %d,0.%d\n" % (i, i) for i in range(10, 60)), ("train",),
                           ["data.label_column: 'label' holds 50 different values in 50 rows, too many for classes"]),
    "a label left out": ("r.csv", table(("fine", "")), LABELLED, ["r.csv: row 41: data.label_column: ", "; "]),
    "one class": ("r.csv", b"text,label\na,pos\nb,pos\n", ("train",),
                  ["data.label_column: only the class 'pos' found; two or more are needed"]),
    "too few": ("r.csv", b"text,label\na,pos\nb,neg\n", ("train",),
                ["data.heldout: none of 2 examples can be spared", "; add examples, or give splits of their own with "]),
    "a list as a label": ("r.jsonl", b'{"text": "a", "label": ["pos", "neg"]}\n', ("train",),
                          ["r.jsonl: row 1: data.label_column: a label is ['pos', 'neg'], a list; one word or number for each"]),
    "blank texts only": ("r.csv", b"text,label\n,pos\n,neg\n,pos\n,neg\n", LABELLED,
                         ["no example with a text; check data.text_column"]),
}  # fmt: skip


@pytest.mark.parametrize(("case", "command"), [(case, c) for case, row in FILES.items() for c in row[2]])
def test_a_bad_file(case: str, command: str, commands: dict, refused: Run, tmp_path: Path) -> None:
    name, data, _, parts = FILES[case]
    line = refused(*commands[command](written(tmp_path / name, data)))
    assert [part for part in parts if part not in line] == []


@pytest.mark.parametrize("command", ALL)
def test_no_such_file(command: str, commands: dict, refused: Run, tmp_path: Path) -> None:
    path = tmp_path / "nowhere.csv"
    line = refused(*commands[command](path))
    field = "--input: no such file" if command == "predict" else "data.path: no such file or folder"
    assert line.startswith(f"{field}: {path}; ")


@pytest.mark.parametrize("command", LABELLED)
def test_an_archive_that_leaves_its_root(command: str, commands: dict, refused: Run, tmp_path: Path) -> None:
    path = tmp_path / "r.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("train/pos/1_9.txt", "test/pos/1_9.txt", "../train/neg/1_1.txt"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"fine"))
    line = refused(*commands[command](path))
    assert line.startswith(f"{path}: '../train/neg/1_1.txt' leaves the archive's root or is a link; do not trust")


BLANK = {
    "r.csv": table(("", "pos"), (" <br /> ", "neg")),
    "r.jsonl": jsonl({"text": None, "label": "pos"}, {"text": "", "label": "neg"}),
    "r.parquet": parquet(text=[None, ""], label=["pos", "neg"]),
}


@pytest.mark.parametrize("command", ALL)
@pytest.mark.parametrize("name", BLANK)
def test_a_blank_text_under_strict(name: str, command: str, commands: dict, refused: Run, tmp_path: Path) -> None:
    path = written(tmp_path / name, BLANK[name])
    flags = ["--strict"] if command == "predict" else ["--data.strict", "true"]
    line = refused(*commands[command](path), *flags)
    assert line.startswith(f"{path}: row 41: the text is blank; fill it, or drop {flags[0]} to ")


@pytest.mark.parametrize("name", BLANK)
def test_a_blank_text_is_skipped_and_counted(
    name: str, commands: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    path = written(tmp_path / name, BLANK[name])
    assert main([str(w) for w in commands["evaluate"](path)]) == 0
    assert "r: skipped 2 blank texts\n" in capsys.readouterr().err  # the file is called r
    measured = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))["evaluation"]
    assert (measured["examples"], measured["blank_skipped"]) == (40, 2)

    assert main([str(w) for w in commands["predict"](path)]) == 0
    assert "42 rows, 2 of them blank and without an answer" in capsys.readouterr().out
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["score"] for row in rows[40:]] == ["", ""]
    assert all(row["predicted_label"] in ("neg", "pos") and float(row["score"]) >= 0.5 for row in rows[:40])


def test_a_text_may_follow_an_option(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quiet", "predict", str(finished), "--json", "a superb film", "a dull film"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in answers] == ["a superb film", "a dull film"]


def test_predict_needs_no_label(commands: dict, tmp_path: Path) -> None:
    path = written(tmp_path / "r.csv", table(("fine", "meh")))
    assert main(["--quiet", *map(str, commands["predict"](path))]) == 0
    assert len((tmp_path / "out.csv").read_text("utf-8").splitlines()) == 42


@pytest.mark.parametrize(
    ("command", "flags", "parts"),
    [
        ("train", ["--training.epoch", "1"], ["--training.epoch: there is no such setting; did you mean --training.epochs?"]),
        ("train", ["--epochs", "1"], ["--epochs: there is no such setting; did you mean --training.epochs?"]),
        ("train", ["--training", "1"], ["--training: a stage, not a setting; give one of its settings"]),
        ("train", ["--training.epochs", "two"], ["training.epochs: two given, a whole number wanted"]),
        ("train", ["--training.epochs"], ["training.epochs: nothing given, a whole number wanted"]),
        ("train", ["--training.device", "gpu"], ["training.device: gpu given, one of auto, cpu, cuda, mps wanted"]),
        ("train", ["--data.heldout", "1.5"], ["data.heldout: 1.5 given, a share from 0 to below 1 wanted"]),
        ("train", ["--data.max_length", "1000"], ["data.max_length: 1000 given, but ", " reads 66 tokens; give fewer"]),
        ("train", ["--data.train_split", "x"], ["data.train_split: ", " has no split 'x'; it has train"]),
        ("train", ["--data.test_split", "x"], ["data.test_split: ", " has no split 'x'; it has train"]),
        ("train", ["--data.group_column", "film"],
         ["row 1: data.group_column: no column 'film' (columns: text, label); name one of them, or drop it"]),
        ("train", ["--data.separator", ";"], ["(columns: text,label); ", "separated otherwise: give another --data.separator"]),
        ("predict", ["--separator", ";"], ["(columns: text,label); ", "separated otherwise: give another --separator, or"]),
        ("train", ["--data.text_column", "x"], ["data.text_column: no column 'x' (columns: text, label); name one"]),
        ("train", ["--data.validation_split", "train"], ["data.validation_split: train is also trained on; give another"]),
        ("train", ["stray"], ["unrecognized arguments: stray; a setting is given as --stage.field value"]),
        ("evaluate", ["--data.splt", "x"], ["--data.splt: there is no such setting; did you mean --data.split?"]),
        ("evaluate", ["--evaluation.bootstrap", "few"], ["evaluation.bootstrap: few given, a whole number wanted"]),
        ("evaluate", ["--data.label_column", "x"], ["data.label_column: no column 'x' (columns: text, label); name one"]),
        ("predict", ["--outptu", "x"], ["--outptu: distilora predict has no such option; did you mean --output?"]),
        ("predict", ["--precision", "half"], ["--precision: 'half' given, auto, bf16, fp32, int8 wanted"]),
        ("predict", ["--text-column", "x"], ["--text-column: no column 'x' (columns: text, label); name one with"]),
        ("predict", ["a text"], ["predict: give either texts", "or --input FILE"]),
    ],
)  # fmt: skip
def test_a_bad_setting(
    command: str, flags: list[str], parts: list[str], commands: dict, refused: Run, reviews: Path
) -> None:  # fmt: skip
    line = refused(*commands[command](reviews), *flags)
    assert [part for part in parts if part not in line] == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("training: {epoch: 1}", ["training.epoch: there is no such setting; did you mean training.epochs?"]),
        ("training: {epochs: two}", ["training.epochs: two given, a whole number wanted"]),
        ("training: {epochs: null}", ["training.epochs: null given, a whole number wanted"]),
        ("training: 3", ["training: 3 given, settings of that stage wanted"]),
        ("training: {epochs: 1", ["recipe: ", "r.yaml is not YAML: "]),
        ("- 1", ["recipe: ", "r.yaml must hold settings such as "]),
    ],
)
def test_a_bad_recipe(text: str, parts: list[str], commands: dict, refused: Run, reviews: Path, tmp_path: Path) -> None:
    command, *flags = commands["train"](reviews)
    line = refused(command, written(tmp_path / "r.yaml", text.encode()), *flags)
    assert [part for part in parts if part not in line] == []


def test_no_such_recipe(refused: Run, tmp_path: Path) -> None:
    line = refused("train", tmp_path / "nowhere.yaml")
    assert line.startswith(f"recipe: cannot read {tmp_path / 'nowhere.yaml'} (No such file or directory); see recipes/")


def test_no_such_command(refused: Run) -> None:
    assert refused("trian") == "trian: no such command; did you mean train?"
    there_are = "there are train, data, baseline, curve, audit, evaluate, compare, predict, explain, score, serve, export, encoder"
    assert refused("--seed", "3", "train") == f"--seed: the command comes first (distilora COMMAND ...); {there_are}"


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
@pytest.mark.parametrize("field", ["data.seed", "training.seed"])
def test_a_seed_that_is_none(field: str, seed: str, commands: dict, refused: Run, reviews: Path) -> None:
    line = refused(*commands["train"](reviews), f"--{field}", seed)
    assert line == f"{field}: {seed} given, a whole number from 0 to 2**63 - 1 wanted"


def test_a_folder_to_predict(finished: Path, refused: Run, tmp_path: Path) -> None:
    line = refused("predict", finished, "--input", tmp_path, "--output", tmp_path / "out.csv")
    assert line.startswith(f"--input: {tmp_path} is a folder; answer its files with distilora score RUN ")


def test_an_output_folder_that_is_taken(commands: dict, refused: Run, reviews: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    words = commands["train"](reviews)
    assert refused(*words) == f"output: {out} is not empty; give another --output"
    line = refused(*words, "--overwrite")
    assert line == f"output: {out} holds something other than a run and is not overwritten; give another folder"
    (out / "run.yaml").write_text("output: x\n")
    assert refused(*words) == f"output: {out} is not empty; give another --output"
    (out / "run.yaml").write_text("{output: x, data: {}, encoder: {}, training: {}}\n")
    (out / "environment.json").write_text('{"versions": {"distilora": "0.1.0"}}')
    assert refused(*words) == f"output: {out} is not empty; give another --output or --overwrite"
    (out / "checkpoints").mkdir()
    assert refused(*words) == f"output: {out} is not empty; give another --output, --overwrite, or --resume {out}"
    assert (out / "thesis.txt").read_text() == "precious"


def test_an_output_folder_that_is_a_file(commands: dict, refused: Run, reviews: Path, tmp_path: Path) -> None:
    out = written(tmp_path / "out", b"precious")
    assert refused(*commands["train"](reviews)) == f"output: {out} is a file; give another folder"
    assert out.read_bytes() == b"precious"


def test_an_output_table_that_cannot_be_written(finished: Path, refused: Run, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "r.csv", ROWS)
    words = ["predict", finished, "--input", path, "--output"]
    assert refused(*words, path) == "--output: the same file as --input; give another name"
    assert "its folder does not exist; create it first" in refused(*words, tmp_path / "no" / "x.csv")
    assert "predictions are tables; give a file ending in " in refused(*words, tmp_path / "x.xls")
    assert "predictions are tables; give a file ending in " in refused(*words, tmp_path / "x.txt")
    assert refused(*words[:-1]) == (
        "predict: --input and --output go together; give both (--output - is standard output)"
    )


@pytest.mark.parametrize("there", [True, False])
def test_not_a_run_folder(there: bool, refused: Run, reviews: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    if there:
        run.mkdir()
        (run / "notes.txt").write_text("x")
    expected = "no artifact.json here; give the folder of a finished run" if there else "no such run; train one with: "
    for words in (["predict", run, "a text"], ["predict", run, "--input", reviews, "--output", tmp_path / "o.csv"],
                  ["evaluate", run, "--data.path", reviews]):  # fmt: skip
        assert refused(*words).startswith(f"{run}: {expected}")
    assert refused("train", "--resume", run).startswith(f"--resume: {run} holds no run; give the folder that the ")


def test_nothing_to_measure(finished: Path, refused: Run) -> None:
    assert (
        refused("evaluate", finished)
        == "data.path: nothing given; name the labelled data with --data.path, or give --checks"
    )
    assert refused("evaluate", "--data.path", "x.csv").startswith("RUN: the run's folder comes first; usage: ")


def test_a_finished_run_is_not_resumed(finished: Path, refused: Run) -> None:
    assert refused("train", "--resume", finished) == f"--resume: {finished} is finished; see its report.html"


def test_a_column_name_of_two_lines_is_still_one_line(commands: dict, refused: Run, tmp_path: Path) -> None:
    path = written(tmp_path / "r.csv", b'"first\nsecond",label\na,pos\n')
    for command in ALL:
        assert "(columns: first second, label)" in refused(*commands[command](path))


def test_a_dataset_that_is_neither_cached_nor_reachable(refused: Run, commands: dict, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for command in LABELLED:
        line = refused(*commands[command](Path("stanfordnlp/imdb")))
        assert line.startswith("data.path: there is no folder stanfordnlp/imdb, it is not in the Hub's local cache")
        assert "recipes/imdb-embedded.yaml" in line
