"""An evaluation's folder: no two different evaluations share one, and nothing is replaced without a word."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.command import failed
from support.tiny import tiny_reviews, write_csv

from distilora.artifact.format import Artifact, read_artifact
from distilora.cli.main import main
from distilora.config.measuring import MeasureConfig, SourceConfig
from distilora.errors import ConfigError
from distilora.evaluation.folder import check_output, choose_folder, data_name, evaluation_identity


def identity(**changes: Any) -> dict[str, Any]:
    return {
        "model": "m", "source": "s", "split": "test", "examples": "e", "backend": "torch", "precision": "fp32",
        "base": None, "device": "auto", **changes,
    }  # fmt: skip


def write(folder: Path, of: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps({"evaluation": {}, "identity": of}))
    return folder


def test_names_tell_precision_base_and_device(tmp_path: Path) -> None:
    def name(config: MeasureConfig, of: dict[str, Any]) -> str:
        return choose_folder(config, tmp_path, "imdb-test", of).relative_to(tmp_path).as_posix()

    plain = MeasureConfig()
    assert name(plain, identity()) == "imdb-test-fp32"
    assert name(plain, identity(base="4bit")) == "imdb-test-fp32-4bit"
    assert name(plain, identity(base="full", precision="bf16")) == "imdb-test-bf16-full"
    assert name(MeasureConfig(device="cpu"), identity(device="cpu")) == "imdb-test-fp32-cpu"


def test_another_evaluation_of_that_name_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path / "r-fp32", identity())
    assert choose_folder(MeasureConfig(), tmp_path, "r", identity(examples="others")) == tmp_path / "r-fp32-2"
    assert capsys.readouterr().err == ""
    assert choose_folder(MeasureConfig(), tmp_path, "r", identity()) == first
    assert capsys.readouterr().err == f"note: {first} holds the same evaluation already; it is written again\n"


def test_a_folder_given_is_not_taken_from_another(tmp_path: Path) -> None:
    folder = write(tmp_path / "given", identity())
    config = MeasureConfig(output=str(folder))
    assert choose_folder(config, tmp_path, "r", identity()) == folder
    with pytest.raises(ConfigError, match=r"given holds another evaluation \(precision fp32\); give another folder$"):
        choose_folder(config, tmp_path, "r", identity(precision="bf16"))
    (folder / "metrics.json").write_text('{"evaluation": {}}')
    with pytest.raises(ConfigError, match="of an earlier release"):
        choose_folder(config, tmp_path, "r", identity())


def test_what_is_no_evaluation_is_refused(finished: Path, tmp_path: Path) -> None:
    for folder in (finished, finished / "model"):
        with pytest.raises(ConfigError, match="holds a run or a model, not an evaluation"):
            check_output(MeasureConfig(output=str(folder)))
    for name in ("report.html", "thesis.txt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
        with pytest.raises(ConfigError, match="holds files that do not belong to an evaluation"):
            check_output(MeasureConfig(output=str(tmp_path / name)))
        with pytest.raises(ConfigError, match="is a file"):
            check_output(MeasureConfig(output=str(tmp_path / name / name)))
    check_output(MeasureConfig(output=str(tmp_path / "new")))
    check_output(MeasureConfig(output=str(write(tmp_path / "r-fp32", identity()))))


def test_an_evaluation_that_cannot_be_written_is_refused_first(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr("distilora.inference.predictor.load", None)
    data = str(write_csv(tmp_path / "r.csv", tiny_reviews(4)))
    for words, folder in (
        (["--output", str(tmp_path / "a" / "b")], tmp_path / "a" / "b"),
        ([], finished / "evaluations"),
    ):
        said = failed(["evaluate", str(finished), "--data.path", data, *words], capsys)
        assert said.startswith(f"output: {folder} cannot be written (")
        assert said.endswith(" is read-only, or not yours); give another folder")


def test_the_identity_tells_what_answers_depend_on(finished: Path) -> None:
    artifact: Artifact = read_artifact(finished)
    config = MeasureConfig(base="full")
    assert evaluation_identity(artifact, config, "s", "test", "e", "fp32")["base"] is None
    quantised = Artifact(**{**vars(artifact), "quantisation": {"type": "nf4"}})
    assert evaluation_identity(quantised, config, "s", "test", "e", "fp32")["base"] == "full"
    assert evaluation_identity(quantised, MeasureConfig(), "s", "test", "e", "fp32")["base"] == "4bit"


def test_data_have_short_names(tmp_path: Path) -> None:
    def name(path: object, **more: str) -> str:
        return data_name(MeasureConfig(data=SourceConfig(path=str(path), **more)), "test")

    (tmp_path / "a.csv").touch()
    (tmp_path / "aclImdb_v1.tar.gz").touch()
    assert name(tmp_path / "a.csv") == "a"
    assert name(tmp_path / "aclImdb_v1.tar.gz") == "aclImdb_v1-test"
    assert name(tmp_path) == f"{tmp_path.name}-test"
    assert name("stanfordnlp/imdb") == "imdb-test"
    assert name("embedded", name="rotten_tomatoes") == "embedded-rotten_tomatoes-test"


def test_evaluations_of_two_files_and_of_one_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    for place, seed in (("a", 7), ("b", 8), ("a", 7)):
        (tmp_path / place).mkdir(exist_ok=True)
        data = write_csv(tmp_path / place / "r.csv", tiny_reviews(20, seed))
        words = ["evaluate", str(run), "--data.path", str(data), "--precision", "fp32", "--evaluation.bootstrap", "100"]
        assert main(words) == 0
    assert "holds the same evaluation already" in capsys.readouterr().err
    folders = sorted((run / "evaluations").iterdir())
    assert [folder.name for folder in folders] == ["r-fp32", "r-fp32-2"]
    sources = [json.loads((folder / "metrics.json").read_text())["source"] for folder in folders]
    assert sources == [str(tmp_path / place / "r.csv") for place in "ab"]
    before = (run / "metrics.json").read_bytes()
    assert main([*words, "--output", str(run)]) == 2
    assert (run / "metrics.json").read_bytes() == before


def test_two_bases_of_one_run_have_a_folder_each(runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["qlora"], tmp_path / "run")
    data = write_csv(tmp_path / "r.csv", tiny_reviews(20, 7))
    words = ["evaluate", str(run), "--data.path", str(data), "--precision", "fp32", "--evaluation.bootstrap", "100"]
    for base in ("4bit", "full", "auto"):
        assert main([*words, "--base", base]) == 0
    assert sorted(path.name for path in (run / "evaluations").iterdir()) == ["r-fp32-4bit", "r-fp32-full"]
