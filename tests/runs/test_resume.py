"""What a run is gone on with must be what it was begun with; its curves have each update once."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from support.stopping import curves, temporary
from support.tiny import tiny_config, tiny_reviews, write_csv

from distilora import hardware, progress
from distilora.cli.main import main
from distilora.runs.resolve import resume_config
from distilora.runs.run import Run
from distilora.training import loop as fit

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def loud_again() -> Iterator[None]:
    yield
    progress.quiet(False)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, encoder: Path, reviews: Path) -> Path:
    """Folder of a run that has been trained and not saved; copy it before it is resumed."""
    base = tmp_path_factory.mktemp("begun")
    data, own = shutil.copy(reviews, base / "reviews.csv"), shutil.copytree(encoder, base / "encoder")
    with Run(tiny_config(base / "run", data, own, training__epochs=1)) as run:
        run.read()
        run.build()
        run.fit()
    return base


def changed(begun: Path, place: Path, **settings: object) -> Path:
    """A copy of the begun run, its data and its encoder, with other settings in run.yaml ('__' for the dot)."""
    base = shutil.copytree(begun, place / "begun")
    settings = {"data__path": str(base / "reviews.csv"), "encoder__name": str(base / "encoder"), **settings}
    file = base / "run" / "run.yaml"
    tree = yaml.safe_load(file.read_text("utf-8"))
    for key, value in settings.items():
        stage, name = key.split("__")
        assert name in tree[stage]
        tree[stage][name] = value
    file.write_text(yaml.safe_dump(tree), "utf-8")
    return base


def kept(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (folder / "checkpoints").rglob("*") if path.is_file()}


def is_refused(run: Path, capsys: Captured) -> None:
    before = kept(run)
    assert before
    capsys.readouterr()
    assert main(["--quiet", "train", "--resume", str(run)]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"distilora: --resume: {run / 'checkpoints'}/")
    assert line.endswith(" was trained on other data or settings; bring them back, or start a new run\n")
    assert kept(run) == before
    assert temporary(run) == []


@pytest.mark.parametrize(
    "setting",
    [
        {"adapter__alpha": 16.0}, {"adapter__dropout": 0.1}, {"adapter__last_blocks": 1}, {"adapter__r": 4},
        {"adapter__method": "head"}, {"data__max_length": 12}, {"data__validation_size": 30}, {"data__seed": 1},
        {"training__learning_rate": 0.02}, {"training__epochs": 2}, {"training__seed": 1},
    ],
    ids=str,
)  # fmt: skip
def test_other_settings_are_refused(setting: dict[str, object], begun: Path, tmp_path: Path, capsys: Captured) -> None:
    is_refused(changed(begun, tmp_path, **setting) / "run", capsys)


def test_another_encoder_is_refused(begun: Path, tmp_path: Path, capsys: Captured) -> None:
    base = changed(begun, tmp_path)
    weights = load_file(base / "encoder" / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1e-3  # the same names and shapes
    save_file(weights, base / "encoder" / "model.safetensors", metadata={"format": "pt"})
    is_refused(base / "run", capsys)


def test_other_labels_are_refused(begun: Path, tmp_path: Path, capsys: Captured) -> None:
    base = changed(begun, tmp_path)
    rows = tiny_reviews(300)
    write_csv(base / "reviews.csv", [(text, "pos" if i == 4 else label) for i, (text, label) in enumerate(rows)])
    is_refused(base / "run", capsys)


def fitted(run: Run) -> fit.Fitted:
    with run:
        run.read()
        run.build()
        return run.fit()


def test_the_same_in_another_place_goes_on(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = changed(begun, tmp_path, training__checkpoint_every=3, training__tracker="tensorboard")
    for name in (".lock", ".metrics.json.123.tmp", "checkpoints/.00000099.123.old.tmp"):
        (base / "run" / name).write_text("of a killed process")
    for name in (".model.123.tmp", "checkpoints/.00000099.123.tmp"):
        (base / "run" / name / "adapter").mkdir(parents=True)
    monkeypatch.delattr(fit, "make_update")  # nothing is left to train
    result = fitted(Run(resume_config(base / "run"), resume=True))
    assert (result.state.update, result.updates) == (15, 15)
    assert temporary(base / "run") == []


def test_threads_are_kept_and_another_number_is_noted(
    encoder: Path, reviews: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "run"
    note = "note: this run was begun with threads: 1 and continues with 2: the last bits of its weights may differ; --threads 1 "
    with hardware.threads_for(2):
        fitted(Run(tiny_config(folder, reviews, encoder, training__epochs=1, training__threads=1)))
        assert torch.get_num_threads() == 2  # the process has its own again
        assert yaml.safe_load((folder / "run.yaml").read_text())["training"]["threads"] == 1
        assert json.loads((folder / "environment.json").read_text())["threads"] == 1
        capsys.readouterr()
        with Run(resume_config(folder), resume=True):
            assert torch.get_num_threads() == 1
        assert note not in capsys.readouterr().err
    run = Run(resume_config(folder, 2), resume=True)
    assert torch.get_num_threads() == 2
    assert fitted(run).state.update == 15  # the same settings but for the threads: gone on with
    said = capsys.readouterr().err
    assert note in said
    assert "resuming after update 15 of 15" in said


class Killed(BaseException):
    pass


@pytest.mark.parametrize("deaths", [[4], [7, 7, 13]])  # checkpoints come after 5, 8, 10 and 15
def test_curves_have_each_update_once(
    deaths: list[int], encoder: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"training__tracker": "tensorboard", "training__epochs": 1, "training__checkpoint_every": 5}
    config = tiny_config(tmp_path / "run", reviews, encoder, **settings)
    rate, left = fit.learning_rate, list(deaths)

    def mortal(update: int, *words: Any) -> float:
        if update == left[0]:
            raise Killed
        return rate(update, *words)

    monkeypatch.setattr(fit, "learning_rate", mortal)
    while left:
        with pytest.raises(Killed):
            fitted(Run(config, resume=left != deaths))
        left.pop(0)
        time.sleep(1 - time.time() % 1)  # TensorBoard reads files in the order of their names, which hold the second
    monkeypatch.setattr(fit, "learning_rate", rate)
    fitted(Run(config, resume=True))
    every = list(range(1, 16))
    assert curves(tmp_path / "run") == {
        "train/loss": every,
        "train/rate": every,
        "validation/loss": [8, 15],
        "validation/accuracy": [8, 15],
    }
