"""Models that come with distilora: a name in place of a run's folder, in every command; nothing is written beside them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.tiny import tiny_reviews, write_csv

from distilora.artifact import shipped
from distilora.artifact.check import read_check
from distilora.artifact.find import find_model
from distilora.artifact.format import read_artifact
from distilora.cli.main import main
from distilora.errors import ArtifactError
from distilora.evaluation.checks.run import make_cases
from distilora.evaluation.checks.suite import read_suite
from distilora.inference.lanes import run_rows
from distilora.inference.predictor import load


@pytest.fixture
def ready(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished run's model, shipped as `tiny`; the current folder is an empty one."""
    folder = tmp_path / "package" / "shipped"
    shutil.copytree(finished / "model", folder / "tiny")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return folder / "tiny"


def test_the_name_stands_for_the_folder(ready: Path, finished: Path) -> None:
    assert shipped.shipped_names() == ["tiny"]
    assert find_model("tiny").folder == read_artifact("tiny").folder == ready
    text = tiny_reviews(1)[0][0]
    assert load("tiny", "fp32", "cpu")(text) == load(finished, "fp32", "cpu")(text)


def test_a_folder_of_that_name_goes_first(ready: Path, finished: Path) -> None:
    shutil.copytree(finished, "tiny")
    assert read_artifact("tiny").folder == Path("tiny/model")


def test_an_evaluation_is_written_where_the_command_started(ready: Path, tmp_path: Path) -> None:
    before = sorted(ready.parent.rglob("*"))
    data = write_csv(tmp_path / "new.csv", tiny_reviews(40, 9))
    assert main(["evaluate", "tiny", "--data.path", str(data), "--evaluation.bootstrap", "100"]) == 0
    (folder,) = Path("tiny-evaluations").iterdir()
    assert (folder / "metrics.json").is_file()
    assert sorted(ready.parent.rglob("*")) == before


def test_an_unknown_name_is_told_which_there_are(ready: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"no such run; train one with: .*, or give tiny, which comes with distilora"
    ):
        read_artifact("tinny")


def test_imdb_comes_with_distilora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    artifact = read_artifact("imdb")
    assert artifact.encoder["name"] == "embedded"
    assert artifact.lexicon["kind"] == "nbsvm"
    assert sum(file.stat().st_size for file in artifact.folder.rglob("*")) < 8e6
    assert "recipes/imdb-embedded-best.yaml" in (artifact.folder / "README.md").read_text("utf-8")
    predictor, check = load("imdb", "fp32", "cpu"), read_check(artifact.folder)
    rows = predictor.task.tokenise(predictor.tokenizer, check.examples).rows
    np.testing.assert_allclose(
        run_rows(rows, predictor.backend), check.outputs_fp32, atol=1e-4
    )  # another processor may round
    answers = predictor(
        ["A slow start, but the last hour is superb.", "Two hours of my life that I will not get back."]
    )
    assert [answer["label"] for answer in answers] == ["positive", "negative"]


def test_no_review_is_redistributed() -> None:
    """A run's check texts are its validation texts; those of a shipped model are sentences of the behaviour checks."""
    suite = read_suite("sentiment")
    own = {case.text for check in suite.checks if not check.on_data for case in make_cases(check, suite, (), 0)}
    for name in shipped.shipped_names():
        texts = [example.texts[0] for example in read_check(shipped.FOLDER / name).examples]
        assert texts
        assert set(texts) <= own
