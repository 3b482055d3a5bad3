"""`distilora train`: what it refuses, and what it leaves alone."""

import os
from pathlib import Path

import pytest
import yaml
from support.command import failed
from support.tiny import tiny_config

from distilora.cli.main import main
from distilora.cli.train import _print_summary
from distilora.config.parse import to_tree
from distilora.config.schema import LexiconName, RunConfig

Captured = pytest.CaptureFixture[str]


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
        (["--resume"], "--resume: nothing given, a value wanted; see distilora train --help"),
        (
            ["--resume", "nowhere"],
            "--resume: nowhere holds no run; give the folder that the stopped run named, or, if it "
            "was stopped before that had been written, start it again",
        ),
        (["mine.csv"], "recipe: mine.csv is no recipe; if it is data, give it as --data.path mine.csv"),
        (["."], "recipe: . is no recipe; if it is data, give it as --data.path ."),
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


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_folder_that_cannot_be_written_is_refused_first(
    dry: list[str], reviews: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr("distilora.runs.preflight.check_data", None)
    said = failed(["train", "--data.path", str(reviews), "--output", str(tmp_path / "locked" / "run"), *dry], capsys)
    assert said == (
        f"output: {tmp_path / 'locked' / 'run'} cannot be written ({tmp_path} is read-only, or not yours); give another folder"
    )


@pytest.mark.parametrize(("lexicon", "form"), [("none", "merged"), ("nbsvm", "onnx-int8")])
def test_the_export_that_is_suggested_carries_the_expert(
    lexicon: LexiconName, form: str, metrics: dict, capsys: Captured
) -> None:
    _print_summary(RunConfig(output="runs/x", lexicon=lexicon), metrics)
    assert f"  distilora export runs/x --to {form} --output runs/x-{form}" in capsys.readouterr().out.splitlines()


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
