"""The command: what it prints, what it writes, how it fails."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import failed
from support.tiny import tiny_reviews, write_csv

import distilora
from distilora.cli.main import USAGE, main
from distilora.errors import ConfigError
from distilora.files.tables import read_table
from distilora.inference.predictor import load

Captured = pytest.CaptureFixture[str]
TEXTS = [text for text, _ in tiny_reviews(6, 9)]


def test_help_is_quick() -> None:
    code = (
        "import sys, time; from distilora.cli.main import main\n"
        "for words in (['--help'], ['-h'], ['help'], ['--quiet', '--version']): assert main(words) == 0\n"
        "for command in 'train data curve audit evaluate predict explain score serve export encoder'.split():\n"
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
        == "distilora: nonsense: no such command; there are train, data, baseline, curve, audit, evaluate, compare, predict, "
        "explain, score, serve, export, encoder\n"
    )


def test_without_a_command(capsys: Captured) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out == USAGE


@pytest.mark.parametrize("command", ["train", "curve", "audit", "evaluate"])
def test_help_of_settings(command: str, capsys: Captured) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"distilora {command}" in text
    assert "--data.path  text; default: " in text
    assert "\n  --threads N\n" in text
    assert "\n  --quiet\n" in text
    assert ("--adapter.last_blocks" in text) == (command in ("train", "curve"))


@pytest.mark.parametrize("command", ["predict", "explain", "score", "serve", "export", "encoder"])
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
        (["RUN", "text", "--precision", "int4"], "--precision: 'int4' given, auto, bf16, fp32, int8 wanted"),
        (["RUN", "fine", " ", "--strict"], "text 2: the text is blank"),
        (["RUN", "text", "--abstain-below", "2"], "--abstain-below: 2.0 given, a probability from 0 to 1 wanted"),
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


COMMANDS = {  # words, and what does the work
    "train": (["--output", "x"], "distilora.runs.preflight.check_run"),
    "curve": (["--output", "x"], "distilora.runs.preflight.check_run"),
    "evaluate": (["RUN", "--data.path", "x.csv"], "distilora.evaluation.evaluate.evaluate"),
    "predict": (["RUN", "a text"], "distilora.inference.predictor.load"),
    "explain": (["RUN", "a text"], "distilora.inference.predictor.load"),
    "score": (["RUN", "x.csv", "--output", "x"], "distilora.scoring.score.score"),
    "serve": (["RUN", "--port", "0"], "distilora.serving.pool.Pool.add"),
    "export": (["RUN", "--to", "merged", "--output", "x"], "distilora.export.preflight.check_export"),
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
        if command in ("train", "curve"):
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
