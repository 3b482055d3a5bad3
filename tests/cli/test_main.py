"""The command: what it prints, what it writes, how it fails."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.tiny import tiny_config, tiny_reviews, write_csv

import distilora
from distilora.cli.main import USAGE, main
from distilora.config.parse import to_tree
from distilora.errors import ConfigError
from distilora.files.tables import read_table
from distilora.inference.predictor import load

Captured = pytest.CaptureFixture[str]
TEXTS = [text for text, _ in tiny_reviews(6, 9)]


def failed(words: list[str], capsys: Captured, code: int = 2) -> str:
    """The one line on stderr of a command that fails."""
    assert main(words) == code
    found = capsys.readouterr()
    assert found.out == ""
    (line,) = found.err.splitlines()
    assert line.startswith("distilora: ")
    return line.removeprefix("distilora: ")


def test_help_is_quick() -> None:
    code = (
        "import sys, time; from distilora.cli.main import main\n"
        "for words in (['--help'], ['-h'], ['help'], ['--quiet', '--version']): assert main(words) == 0\n"
        "for command in ('train', 'evaluate', 'predict', 'explain', 'score', 'export', 'encoder'):\n"
        "    try: assert main([command, '--help']) == 0\n"
        "    except SystemExit as leaving: assert leaving.code == 0\n"
        "heavy = {'torch', 'transformers', 'peft', 'jsonargparse', 'numpy', 'yaml', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 'too slow' if time.process_time() > 0.5 else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(3 * USAGE + f"distilora {distilora.__version__}\nusage: distilora train ")


def test_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "distilora", "nonsense"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "distilora: nonsense: no such command; there are train, evaluate, predict, explain, score, export, encoder\n"
    )


def test_without_a_command(capsys: Captured) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out == USAGE


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_help_of_settings(command: str, capsys: Captured) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"distilora {command}" in text
    assert "--data.path  text; default: " in text
    assert "\n  --threads N\n" in text
    assert "\n  --quiet\n" in text
    assert ("--adapter.last_blocks" in text) == (command == "train")


@pytest.mark.parametrize("command", ["predict", "explain", "score", "export", "encoder"])
def test_help_of_arguments(command: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([command, "--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: distilora {command}" in text
    assert "--threads N" in text
    assert "--quiet" in text


def test_predict_texts(finished: Path, capsys: Captured) -> None:
    long = "superb film " * 60
    assert main(["predict", str(finished), *TEXTS, long, "--precision", "fp32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    answers = load(finished, "fp32")([*TEXTS, long])
    for line, answer in zip(lines, answers, strict=True):
        assert line.split()[0] == answer["label"]
        assert f"{answer['label']} {answer['score']:.1%}" in line
        assert line.endswith("(longer than the model reads: cut)") == answer["truncated"]


def test_predict_blank_texts(finished: Path, capsys: Captured) -> None:
    assert main(["predict", str(finished), "dull", " ", ""]) == 0
    first, *blank = capsys.readouterr().out.splitlines()
    assert first.startswith("neg  ")
    assert blank == ["(blank: no answer)"] * 2
    assert main(["predict", str(finished), " ", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] is None


def test_predict_json(finished: Path, capsys: Captured) -> None:
    assert main(["predict", str(finished / "model"), "--json", "--device", "cpu", "Ein süßer film", "dull"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["Ein süßer film", "dull"]
    assert set(rows[0]) == {"text", "label", "score", "p_neg", "p_pos", "truncated", "abstain"}


def test_predict_a_file(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    source = write_csv(tmp_path / "in.csv", [*tiny_reviews(5), ("", "pos")])
    output = tmp_path / "out.jsonl"
    assert main(["predict", str(finished), "--input", str(source), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: 6 rows, 1 of them blank and without an answer\n"
    rows = [dict(record.values) for record in read_table(output)]
    assert [row["label"] for row in rows] == ["neg", "pos", "neg", "pos", "neg", "pos"]  # the table's own
    assert [row["predicted_label"] is None for row in rows] == [False] * 5 + [True]


def test_predict_standard_input(
    finished: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.csv"
    for given, kind in (
        ("dull\nsuperb ü\n", []),
        ('{"text": "dull"}\n{"text": "superb ü"}', ["--input-format", "jsonl"]),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        assert main(["predict", str(finished), "--input", "-", "--output", str(output), "--overwrite", *kind]) == 0
        assert capsys.readouterr().out == f"{output}: 2 rows\n"
        assert [record.values["text"] for record in read_table(output)] == ["dull", "superb ü"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["RUN"], "predict: give either texts"),
        (["RUN", "text", "--input", "a.csv", "--output", "b.csv"], "predict: give either texts"),
        (["RUN", "--input", "a.csv"], "predict: --input and --output go together"),
        (["RUN", "--input", "missing.csv", "--output", "b.csv"], "--input: no such file: missing.csv"),
        (["RUN", "--input", "-", "--output", "b.txt"], "b.txt: predictions are tables"),
        (["RUN", "--input", "a.doc", "--output", "b.csv"], "a.doc: unknown kind of file"),
        (["RUN", "text", "--precision", "int4"], "argument --precision: invalid choice"),
        (["RUN", "fine", " ", "--strict"], "text 2: the text is blank"),
        (
            ["RUN", "text", "--presision", "int8"],
            "--presision: distilora predict has no such option; did you mean --prec",
        ),
        (["nowhere", "text"], "nowhere: no such run; train one with"),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_predict_refuses(
    finished: Path, words: list[str], named: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO())))
    said = failed(["predict", *(str(finished) if word == "RUN" else word for word in words)], capsys)
    assert said.startswith(named)


def test_predict_does_not_write_over_its_input(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    source = write_csv(tmp_path / "in.csv", tiny_reviews(2))
    before = source.read_bytes()
    said = failed(["predict", str(finished), "--input", str(source), "--output", str(source)], capsys)
    assert said == "--output: the same file as --input; give another name"
    assert source.read_bytes() == before


def test_evaluate_writes_its_folder(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    data = write_csv(tmp_path / "other.csv", tiny_reviews(50, 4), ("review", "sentiment"))
    folder = tmp_path / "measured"
    words = [
        "evaluate",
        str(finished),
        "--data.path",
        str(data),
        "--output",
        str(folder),
        "--evaluation.bootstrap",
        "100",
    ]
    assert main([*words, "--precision", "fp32"]) == 2
    assert "--data.label_column" in capsys.readouterr().err
    assert not folder.exists()
    assert main([*words, "--precision", "fp32", "--data.label_column", "sentiment"]) == 0
    out = capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "predictions.parquet", "report.html"]
    measured = json.loads((folder / "metrics.json").read_text())
    accuracy = measured["evaluation"]["metrics"]["accuracy"]
    assert measured["precision"] == "fp32"
    assert measured["evaluation"]["examples"] == 50
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert f"{accuracy['value']:.2%}" in out
    assert "always 'neg', the most frequent of training: accuracy 50.00%, macro F1 33.33%" in out
    for row in measured["evaluation"]["classes"]:
        assert (
            f"  {row['label']:<5}  {row['precision']:>9.1%}  {row['recall']:>6.1%}  {row['f1']:>6.1%}         25" in out
        )
    assert measured["notes"] == [
        "Texts are read from column 'review'; in training it was 'text'.",
        "Labels are read from column 'sentiment'; in training it was 'label'.",
    ]
    assert f"The report: {folder}/report.html" in out
    rows = [record.values for record in read_table(folder / "predictions.parquet")]
    assert sum(row["target"] == row["label"] for row in rows) / 50 == pytest.approx(accuracy["value"])


def test_evaluate_warns_of_what_was_trained_on(finished: Path, reviews: Path, tmp_path: Path, capsys: Captured) -> None:
    words = ["evaluate", str(finished), "--data.path", str(reviews), "--output", str(tmp_path / "measured")]
    assert main([*words, "--evaluation.bootstrap=100"]) == 0
    # 30 of the 300 were held out; the other 270 are known again by content, under whatever name the file goes
    assert "warning: 270 of these 300 texts were trained or chosen on" in capsys.readouterr().err
    assert "270 of these 300 texts" in (tmp_path / "measured" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "RUN: the run's folder comes first"),
        (["--data.path", "x.csv"], "RUN: the run's folder comes first"),
        (["RUN"], "data.path: nothing given"),
        (["RUN", "--data.path", "missing.csv"], "data.path: no such file or folder: missing.csv"),
        (["RUN", "--data.pth", "x.csv"], "--data.pth: there is no such setting; did you mean --data.path?"),
        (["nowhere", "--data.path", "x.csv"], "nowhere: no such run"),
        (
            ["RUN", "my reviews.csv"],
            "my reviews.csv: say what it is; labelled data is given with --data.path 'my reviews.csv'",
        ),
    ],
)
def test_evaluate_refuses(finished: Path, words: list[str], named: str, capsys: Captured) -> None:
    said = failed(["evaluate", *(str(finished) if word == "RUN" else word for word in words)], capsys)
    assert said.startswith(named)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["missing.yaml"], "recipe: cannot read missing.yaml"),
        (["--training.epoch", "3"], "--training.epoch: there is no such setting; did you mean --training.epochs?"),
        (["--lr", "3e-4"], "--lr: there is no such setting; did you mean --training.learning_rate?"),
        (["--training.lr", "3e-4"], "--training.lr: there is no such setting; did you mean --training.learning_rate?"),
        (["--overwrit"], "--overwrit: there is no such setting; did you mean --overwrite?"),
        (["--threads", "2", "--training.threads", "3"], "--threads: given beside --training.threads"),
        (["--threads", "none"], "--threads: none given, a whole number from 1 to 1024 wanted"),
        (["--resume"], "argument --resume: expected one argument"),
        (["--resume", "nowhere"], "--resume: nowhere holds no run"),
    ],
)
def test_train_refuses(words: list[str], named: str, capsys: Captured) -> None:
    assert failed(["train", *words], capsys).startswith(named)


def test_train_leaves_what_is_there(
    finished: Path, encoder: Path, reviews: Path, tmp_path: Path, capsys: Captured
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(to_tree(tiny_config(finished, reviews, encoder))))
    said = failed(["train", str(recipe)], capsys)
    assert said == f"output: {finished} is not empty; give another --output or --overwrite"
    assert failed(["train", "--resume", str(finished)], capsys).endswith("is finished; see its report.html")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    said = failed(["train", str(recipe), "--output", str(tmp_path / "mine"), "--overwrite"], capsys)
    assert "holds something other than a run and is not overwritten" in said
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_encoder_embedded(tmp_path: Path, capsys: Captured) -> None:
    output = tmp_path / "minilm"
    assert main(["encoder", "embedded", "--output", str(output)]) == 0
    assert capsys.readouterr().out.startswith(f"{output}: DistilBERT layout")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in output.iterdir()}
    assert json.loads((output / "config.json").read_text())["model_type"] == "distilbert"
    assert failed(["encoder", "embedded", "--output", str(output)], capsys).endswith(
        "exists already; give another folder"
    )


@pytest.mark.parametrize("words", [[], ["other", "--output", "x"], ["embedded"]])
def test_encoder_refuses(words: list[str], capsys: Captured) -> None:
    assert "see distilora encoder --help" in failed(["encoder", *words], capsys)


COMMANDS = {  # words, and what does the work
    "train": (["--output", "x"], "distilora.runs.preflight.check_run"),
    "evaluate": (["RUN", "--data.path", "x.csv"], "distilora.evaluation.evaluate.evaluate"),
    "predict": (["RUN", "a text"], "distilora.inference.predictor.load"),
    "explain": (["RUN", "a text"], "distilora.inference.predictor.load"),
    "score": (["RUN", "x.csv", "--output", "x"], "distilora.scoring.score.score"),
    "export": (["RUN", "--to", "merged", "--output", "x"], "distilora.export.export.export_run"),
    "encoder": (["embedded", "--output", "x"], "distilora.model.encoders.find.write_embedded"),
}


@pytest.mark.parametrize("place", [0, 1, 2, None], ids=["before", "after", "later", "last"])
@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_every_command(command: str, place: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from distilora import hardware, progress

    words, worker = COMMANDS[command]
    line = [command, *words]
    line[place:place] = ["--quiet", "--threads", "3"]
    if place is None:
        line = [command, *words, "--quiet", "--threads", "3"]
    seen = []

    def work(*given: object, **more: object) -> None:
        variables = {os.environ[name] for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")}
        seen.append((progress._quiet, hardware.threads(), torch.get_num_threads(), variables))
        if command == "train":
            assert given[0].training.threads == 3
        raise ConfigError("seen")

    monkeypatch.setattr(worker, work)
    try:
        with hardware.threads_for(1):
            assert main(line) == 2
        assert seen == [(True, 3, 3, {"3"})]
        assert torch.get_num_threads() == 1
    finally:
        progress.quiet(False)


def test_threads_are_set_before_what_has_threads_is_loaded() -> None:
    code = (
        "import os, sys; from distilora.cli.main import main\n"
        "class Watch:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name in ('numpy', 'tokenizers'): print(name, *map(os.environ.get, NAMES))\n"
        "NAMES = 'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'RAYON_NUM_THREADS'\n"
        "sys.meta_path.insert(0, Watch())\n"
        "sys.exit(main(['predict', 'nowhere', 'a text', '--threads', '3']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr[:28]) == (2, "distilora: nowhere: no such ")
    assert sorted(done.stdout.splitlines()) == ["numpy 3 3 3 3", "tokenizers 3 3 3 3"]


def test_resuming_on_other_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from distilora import hardware
    from distilora.runs import preflight, run

    monkeypatch.setattr(preflight, "check_run", lambda config, **more: None)
    (tmp_path / "run.yaml").write_text("training: {threads: 2}")
    seen = []
    monkeypatch.setattr(run, "train", lambda config, **more: seen.append(config.training.threads) or {})
    with hardware.threads_for(1):
        assert main(["train", "--resume", str(tmp_path), "--threads", "3"]) == 0
        assert main(["train", "--resume", str(tmp_path)]) == 0
    assert seen == [3, 2]


@pytest.mark.parametrize("place", [0, 2])
def test_quiet(place: int, finished: Path, reviews: Path, tmp_path: Path, capsys: Captured) -> None:
    from distilora.progress import quiet

    words = ["evaluate", str(finished), "--data.path", str(reviews), "--output", str(tmp_path / "measured")]
    try:
        words.insert(place, "--quiet")
        assert main([*words, "--evaluation.bootstrap=100"]) == 0
        assert capsys.readouterr().err == ""
    finally:
        quiet(False)
