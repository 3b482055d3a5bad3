"""What can be known to be wrong is said before torch is loaded; a dry run says the rest and writes nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.stopping import write_recipe
from support.tiny import tiny_config, tiny_reviews, write_csv

from distilora import progress
from distilora.cli.main import main
from distilora.config.parse import parse, read_recipe
from distilora.config.schema import AdapterConfig, RunConfig
from distilora.errors import ConfigError, OutputError
from distilora.runs import dry_run
from distilora.runs.preflight import check_run, trained_numbers
from distilora.runs.resolve import check_given, resume_config, say_what_is_used

Captured = pytest.CaptureFixture[str]
HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets")
TRY = f"""
import json, sys
from distilora.cli.main import main
for words in json.load(sys.stdin):
    assert main(words) == 2
heavy = [name for name in {HEAVY} if name in sys.modules]
assert not heavy, heavy
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of files that are no test data for a run on the tiny reviews."""
    folder = tmp_path / "files"
    folder.mkdir()
    write_csv(folder / "unlabelled.csv", [(text,) for text, _ in tiny_reviews(8)], ("text",))
    write_csv(folder / "other_text.csv", tiny_reviews(8), ("body", "label"))
    write_csv(folder / "other_label.csv", [*tiny_reviews(8), ("so so", "meh")])
    write_csv(folder / "blank_label.csv", [*tiny_reviews(8), ("so so", "")])
    (folder / "ragged.csv").write_text("text,label\na superb film,pos\nfine, really,pos\n")
    return folder


def test_before_torch_is_loaded(files: Path, finished: Path, encoder: Path, reviews: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    begin = ["--quiet", "train", "--output", str(out), "--encoder.name", str(encoder), "--data.max_length", "64"]
    cases = {
        ("--data.test_path", "unlabelled.csv"): "row 1: data.label_column: no column 'label' (columns: text)",
        ("--data.test_path", "other_text.csv"): "row 1: data.text_column: no column 'text' (columns: body, label)",
        ("--data.test_path", "other_label.csv"): "row 9: data.label_column: label 'meh' was not seen in training",
        ("--data.test_path", "blank_label.csv"): "row 9: data.label_column: label '' was not seen in training",
        ("--data.test_path", "ragged.csv"): "row 2: 3 cells under 2 columns",
        ("--data.test_path", "nowhere.csv"): "data.test_path: no such file or folder",
        ("--data.unlabelled", "nowhere.csv"): "data.unlabelled: no such file or folder",
        ("--data.labels", "[neg,good]"): "row 2: data.labels: 'pos' is not in the list (neg, good)",
        ("--data.validation_split", "dev"): "data.validation_split: ",
        ("--data.group_column", "film"): "row 1: data.group_column: no column 'film' (columns: text, label)",
        ("--data.max_length", "600"): "data.max_length: 600 given, but ",
        ("--encoder.name", "nowhere"): "encoder.name: no such folder: nowhere",
        ("--adapter.targets", "[q_lin,lin3]"): "adapter.targets: 'lin3' given, but ",
        ("--adapter.last_blocks", "3"): "adapter.last_blocks: 3 given, but the encoder has 2; give fewer",
        ("--training.tracker", "mlflow"): "training.tracker: mlflow is not installed",
        ("--output", str(finished)): f"output: {finished} is not empty; give another --output or --overwrite",
        ("--adapter.method", "head", "--adapter.r", "4"): "adapter.r: given, but method head does not use it; drop it",
    }  # fmt: skip
    commands = [[*begin, "--data.path", str(reviews), *words] for words in cases]
    done = subprocess.run(
        [sys.executable, "-c", TRY], input=json.dumps(commands), cwd=files, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(cases)
    for line, said in zip(lines, cases.values(), strict=True):
        assert line.startswith("distilora: ")
        assert said in line
    assert not out.exists()


def test_a_disk_without_room(
    finished: Path, encoder: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    config = tiny_config(tmp_path / "a" / "run", reviews, encoder)
    with pytest.raises(OutputError) as error:
        check_run(config)
    assert str(error.value) == (
        f"output: {config.output} cannot be written: its disk has room for 0.1 MB, checkpoints and model take 0.5 MB; "
        "make room, or give another --output"
    )
    former = shutil.copytree(finished, tmp_path / "former")
    (former / "report.html").write_bytes(bytes(400_000))
    check_run(tiny_config(former, reviews, encoder), overwrite=True)  # what the former run holds becomes room


def test_what_is_trained_is_known_from_the_files(runs: dict[str, Path], reviews: Path) -> None:
    for method, run in runs.items():
        trained = json.loads((run / "metrics.json").read_text("utf-8"))["parameters"]["trained"]
        config = parse(RunConfig, (), {**read_recipe(run / "run.yaml"), "output": f"{run}-again"})
        checked = check_run(config)
        assert trained_numbers(config, checked.encoder, checked.task) == pytest.approx(trained, rel=0.04), method


def test_a_dry_run_says_what_the_run_would_do(
    finished: Path, metrics: dict, encoder: Path, reviews: Path, tmp_path: Path, capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(dry_run, "MEASURED_S", 0.02)
    config = tiny_config(tmp_path / "run", reviews, encoder, adapter__last_blocks=1)
    recipe = write_recipe(tmp_path / "recipe.yaml", config)
    before = sorted(tmp_path.rglob("*"))
    assert main(["--quiet", "train", recipe, "--dry-run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    title, *rows = capsys.readouterr().out.splitlines()
    assert title == f"{config.output}: nothing is trained or written (--dry-run)"
    lines = dict(row.strip().split("  ", 1) for row in rows)
    lines = {name: text.strip() for name, text in lines.items()}
    data = metrics["data"]
    assert lines["train"] == f"{data['train']} texts: neg {data['train'] // 2}, pos {data['train'] // 2}"
    assert lines["validation"] == f"{data['validation']} texts: neg 20, pos 20"
    assert lines["test"] == "heldout, 30 texts: neg 15, pos 15"
    assert lines["tokens per text"].endswith("; 0 texts are truncated")
    assert lines["updates"].startswith(
        f"{metrics['training']['planned_updates']} of 16 texts, in 8 epochs; 2 validations"
    )
    assert lines["method"].startswith("LoRA, ")
    assert " MB for the frozen-prefix cache" in lines["disk"]
    assert lines["time"].startswith("at most about ")
    assert "tokens/s in updates" in lines["time"]

    texts = write_csv(tmp_path / "u.csv", [(text, "?") for text, _ in tiny_reviews(50, 9)])
    more = ["--data.unlabelled", str(texts), "--training.epochs", "1", "--training.validations", "1"]
    assert main(["--quiet", "train", recipe, "--dry-run", *more]) == 0
    lines = dict(row.strip().split("  ", 1) for row in capsys.readouterr().out.splitlines()[1:])
    assert lines["unlabelled"].strip() == f"50 of 50 texts of {texts}, train"
    assert lines["teacher's updates"].strip() == "15 of 16 texts, in 1 epoch; 1 validation, on the labels"
    assert lines["student's updates"].strip() == "18 of 16 texts, in 1 epoch; 1 validation, on labels and soft labels"
    assert "updates" not in lines

    assert (
        main(["--quiet", "train", recipe, "--dry-run", "--output", str(finished)]) == 2
    )  # what a run refuses, it refuses
    assert main(["--quiet", "train", "--resume", str(finished), "--dry-run"]) == 2
    assert "is finished" in capsys.readouterr().err
    progress.quiet(False)


def test_a_run_can_be_resumed_from_anywhere(
    encoder: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(reviews, tmp_path / "reviews.csv")
    write_csv(tmp_path / "test.csv", tiny_reviews(8, 3))
    shutil.copytree(encoder, tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    config = tiny_config(
        Path("run"), Path("reviews.csv"), Path("tiny"), data__test_path="test.csv", data__unlabelled="test.csv"
    )
    checked = check_run(config).config
    assert checked.output == "run"
    for path, name in (
        (checked.data.path, "reviews.csv"),
        (checked.data.test_path, "test.csv"),
        (checked.data.unlabelled, "test.csv"),
        (checked.encoder.name, "tiny"),
    ):
        assert path == str(tmp_path / name)
    (tmp_path / "run").mkdir()
    write_recipe(tmp_path / "run" / "run.yaml", config)  # as earlier versions wrote it: still read from this folder
    assert check_run(resume_config("run"), resume=True).config.data == checked.data


@pytest.mark.parametrize("name", ["embedded", "owner/name"])
def test_a_name_that_is_no_path_stays(name: str) -> None:
    from distilora.runs.resolve import with_absolute_paths

    config = parse(RunConfig, (), {"data": {"path": name}, "encoder": {"name": name}})
    assert with_absolute_paths(config) == config


@pytest.mark.parametrize(
    ("method", "flags", "recipe", "named"),
    [
        ("full", {"adapter.r"}, {}, "r"),
        ("head", {"adapter.method", "adapter.alpha"}, {}, "alpha"),
        ("full", set(), {"adapter": {"r": 8}}, "r"),
        ("full", {"adapter.targets"}, {}, "targets"),
        ("full", set(), {"adapter": {"r": 16, "alpha": 16.0, "targets": "all"}}, None),  # a run.yaml names the defaults
        ("full", set(), {"adapter": None}, None),
        ("qlora", {"adapter.r"}, {"adapter": {"r": 8}}, None),
    ],
)
def test_a_setting_that_the_method_does_not_use(method: str, flags: set, recipe: dict, named: str | None) -> None:
    config = RunConfig(adapter=AdapterConfig(method=method, r=8))
    if named is None:
        check_given(config, flags, recipe)
        return
    with pytest.raises(ConfigError, match=f"^adapter.{named}: given, but method {method} does not use it"):
        check_given(config, flags, recipe)


def test_the_library_is_warned_of_a_setting_that_is_not_used(encoder: Path, reviews: Path, capsys: Captured) -> None:
    progress.quiet(False)
    config = tiny_config(Path("run"), reviews, encoder, adapter__method="head")
    say_what_is_used(config, check_run(config).encoder)
    assert "warning: adapter.r, adapter.alpha: not used by method head\n" in capsys.readouterr().err
