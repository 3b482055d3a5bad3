"""The threshold for an error rate, from a saved run and its exports, through load and through the commands."""

import json
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.fresh import verify_here
from support.tiny import BAD, GOOD, PLAIN, tiny_config, tiny_reviews, write_csv

from distilora.artifact.format import read_artifact, sealed
from distilora.artifact.scores import SCORES, pack_scores, read_scores
from distilora.cli.main import main
from distilora.errors import ConfigError
from distilora.export import save as saving
from distilora.files.atomic import sha256
from distilora.files.tables import read_table
from distilora.inference.predictor import load
from distilora.runs.run import train
from distilora.tasks.abstention import Scored, choose_threshold, least_examples

RATE = 0.2  # which 40 validation texts and two checkpoints allow
SCORES_OF_200 = np.linspace(0.6, 0.99, 200)
UNSURE = Scored(SCORES_OF_200, SCORES_OF_200 >= 0.79, choices=2)


def with_scores(folder: Path, scored: dict[str, Scored] | None) -> Path:
    """Gives a copied model other scores, or none, as a model of an earlier release has."""
    fields = json.loads((folder / "artifact.json").read_text("utf-8"))
    del fields["files"][SCORES]
    (folder / SCORES).unlink()
    if scored is not None:
        (folder / SCORES).write_bytes(pack_scores(scored))
        fields["files"][SCORES] = sha256(folder / SCORES)
    (folder / "artifact.json").write_text(json.dumps(sealed(fields)), "utf-8")
    return folder


@pytest.fixture
def model(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run's model that has to abstain below about 0.8."""
    return with_scores(shutil.copytree(finished / "model", tmp_path / "model"), {"torch fp32": UNSURE})


def test_a_run_holds_its_validation_answers(finished: Path) -> None:
    [(way, scored)] = read_scores(read_artifact(finished)).items()
    rows = [r.values for r in read_table(finished / "predictions.parquet") if r.values["split"] == "validation"]
    assert way == "torch fp32"
    assert scored.scores.tolist() == pytest.approx([row["score"] for row in rows])
    assert scored.correct.tolist() == [row["label"] == row["target"] for row in rows]
    assert scored.choices == 2  # validations of the run: checkpoints to choose from


def test_load_chooses_the_threshold(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = choose_threshold(UNSURE, RATE)
    assert 0.75 < chosen.score < 0.85
    predictor = load(model, "fp32", "cpu", abstain_error=RATE)
    assert f"note: {chosen.sentence()}\n" in capsys.readouterr().err
    assert predictor.abstain_below == chosen.score
    texts = [text for text, _ in tiny_reviews(300)]
    answers = predictor(texts)
    assert [a["abstain"] for a in answers] == [a["score"] < chosen.score for a in answers]
    assert {a["abstain"] for a in answers} == {True, False}
    assert pickle.loads(pickle.dumps(predictor)).abstain_below == chosen.score  # noqa: S301 - our own


def test_the_commands_choose_the_same(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_csv(tmp_path / "in.csv", tiny_reviews(60, 3))
    score = load(model, "fp32", "cpu", abstain_error=RATE).abstain_below
    way = ["--precision", "fp32", "--device", "cpu", "--abstain-error", str(RATE)]
    assert main(["predict", str(model), "--input", str(source), "--output", str(tmp_path / "out.csv"), *way]) == 0
    job = ["score", str(model), str(source), "--output", str(tmp_path / "scored"), "--format", "csv", *way]
    assert main(job) == 0
    tables = [[r.values for r in read_table(tmp_path / name)] for name in ("out.csv", "scored/shard-00000.csv")]
    assert [row["abstain"] for row in tables[0]] == [row["abstain"] for row in tables[1]]
    assert {row["abstain"] for row in tables[0]} == {"True", "False"}
    for row in tables[0]:
        assert (row["abstain"] == "True") == (float(row["score"]) < score)
    capsys.readouterr()
    assert main(job) == 0  # resumed
    assert "nothing was left to do" in capsys.readouterr().out


def test_an_export_holds_scores_of_its_own(graphs: Path, finished: Path, tmp_path: Path) -> None:
    scored = read_scores(read_artifact(graphs))
    assert set(scored) == {"onnx fp32", "onnx int8"}
    assert [answers.choices for answers in scored.values()] == [4, 4]  # two checkpoints, and the gate chose of two ways
    whole = read_scores(read_artifact(finished))["torch fp32"]
    assert np.abs(np.sort(scored["onnx fp32"].scores) - np.sort(whole.scores)).max() < 1e-4
    assert np.abs(scored["onnx int8"].scores - scored["onnx fp32"].scores).max() > 1e-4
    other = shutil.copytree(graphs, tmp_path / "js")
    with_scores(other, {"onnx fp32": Scored(SCORES_OF_200, UNSURE.correct | True, 2), "onnx int8": UNSURE})
    assert load(other, "int8", abstain_error=0.3).abstain_below > load(other, "fp32", abstain_error=0.3).abstain_below
    with_scores(other, {"onnx fp32": scored["onnx fp32"]})
    with pytest.raises(
        ConfigError, match=r"^abstain_error: .* holds scores in onnx fp32, not in int8; give that precision"
    ):
        load(other, "int8", abstain_error=0.3)


def test_another_precision_of_the_same_weights_is_said(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load(model, "bf16", "cpu", abstain_error=RATE).abstain_below > 0
    assert "the threshold comes from scores in fp32; answers are computed in bf16" in capsys.readouterr().err


def test_what_cannot_be_kept_is_refused(model: Path, finished: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    needed = least_examples(0.02, 2)
    message = f"^abstain_error: 0.02 needs at least {needed} calibration texts, answered without a mistake, and this model has 40;"
    with pytest.raises(ConfigError, match=message):
        load(finished, "fp32", "cpu", abstain_error=0.02)
    with pytest.raises(ConfigError, match=r"^abstain_error: given together with abstain_below; give one of them$"):
        load(finished, device="cpu", abstain_below=0.9, abstain_error=RATE)
    with pytest.raises(
        ConfigError, match=r"^abstain_error: the run's scores are those of its adapter on the 4-bit base"
    ):
        load(runs["qlora"], device="cpu", base="full", abstain_error=RATE)
    older = with_scores(model, None)
    assert load(older, device="cpu")("superb")["label"] == "pos"
    with pytest.raises(
        ConfigError, match="holds no scores of held-out texts to choose a threshold by; train or export"
    ):
        load(older, device="cpu", abstain_error=RATE)


@pytest.mark.parametrize("command", ["predict", "score"])
def test_a_command_names_its_option_and_writes_nothing(
    command: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_csv(tmp_path / "in.csv", tiny_reviews(4)), tmp_path / "out.csv"
    files = (
        ["--input", str(source), "--output", str(out)] if command == "predict" else [str(source), "--output", str(out)]
    )
    for rate, said in (
        ("2", "2.0 given, a share above 0"),
        ("0.02", "0.02 needs at least"),
        ("x", "'x' given, a number"),
    ):
        assert main([command, str(finished), *files, "--device", "cpu", "--abstain-error", rate]) == 2
        assert (
            capsys.readouterr().err.splitlines()[-1].removeprefix("distilora: ").startswith(f"--abstain-error: {said}")
        )
        assert not out.exists()
    advice = "train with more labelled rows or a larger data.validation_size (a fifth of the rows at most), export the run with "
    assert main([command, str(finished), *files, "--device", "cpu", "--abstain-error", "0.02"]) == 2
    assert capsys.readouterr().err.endswith(
        f"{advice}--held-out PATH, give a higher rate, or a threshold with --abstain-below\n"
    )


def test_three_classes(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(saving, "verify", verify_here)
    rng = random.Random(0)
    kinds = {"bad": (BAD,), "good": (GOOD,), "mixed": (BAD, GOOD)}
    rows = [
        (
            " ".join(rng.choices(PLAIN, k=4) + [word for words in kinds[label] for word in rng.choices(words, k=3)])
            + f" {i}.",
            label,
        )
        for i, label in enumerate(["bad", "good", "mixed"] * 130)
    ]
    data = write_csv(tmp_path / "three.csv", rows)
    train(tiny_config(tmp_path / "run", data, encoder, data__validation_size=60, training__epochs=6))
    scored = read_scores(read_artifact(tmp_path / "run"))["torch fp32"]
    assert len(scored.scores) == 60
    texts = ["a superb and moving film", "a film superb and dull"]
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), *texts, "--json", "--device", "cpu", "--abstain-error", "0.25"]) == 0
    done = capsys.readouterr()
    threshold = choose_threshold(scored, 0.25)
    assert f"note: {threshold.sentence()}" in done.err
    for line in map(json.loads, done.out.splitlines()):
        assert line["abstain"] == (line["score"] < threshold.score)
        assert {"p_bad", "p_good", "p_mixed"} <= set(line)
    evaluation = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))["evaluations"][0]
    assert evaluation["figures"]["risk_coverage"]["aurc"]["low"] is not None
