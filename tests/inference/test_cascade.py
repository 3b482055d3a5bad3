"""Answers by a cascade: the expert's own where it is sure, the model's in all other cases, wherever texts are answered."""

import dataclasses
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fresh import verify_here
from support.tiny import tiny_config, tiny_reviews, write_csv

import distilora
from distilora.artifact.check import read_check
from distilora.artifact.format import read_artifact, write_artifact
from distilora.artifact.scores import SCORES, pack_scores, read_scores
from distilora.cli.main import main
from distilora.config.schema import RunConfig
from distilora.errors import ConfigError
from distilora.inference import cascade as cascades
from distilora.inference.predictor import Predictor
from distilora.runs.run import train
from distilora.tasks.cascade import CascadeThreshold

TEXTS = [text for text, _ in tiny_reviews(60, 11)]


@pytest.fixture(scope="module")
def combined(tmp_path_factory: pytest.TempPathFactory, encoder: Path, reviews: Path) -> Path:
    folder = tmp_path_factory.mktemp("combined") / "run"
    config = tiny_config(folder, reviews, encoder, training__epochs=2, data__train_size=120)
    train(RunConfig(**{**vars(config), "lexicon": "nbsvm"}))
    return folder


def by_expert(predictor: Predictor) -> list[dict[str, Any]]:
    """What the expert alone answers to TEXTS."""
    expert, examples = predictor.calibrate.expert, [predictor.example(text, "text") for text in TEXTS]
    assert expert is not None
    return predictor.task.decode(expert.weights.expert_alone * expert.logits(examples), examples, predictor.tokenizer)


@pytest.fixture
def certain(combined: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """A threshold, as thousands of validation texts would give one: the expert is sure of half of TEXTS."""
    score = float(np.median([answer["score"] for answer in by_expert(distilora.load(combined, "fp32"))]))
    monkeypatch.setattr(cascades, "choose_cascade", lambda scored: CascadeThreshold(score, 50, 0, 100))
    return score


def test_a_run_keeps_what_its_expert_says_of_validation(combined: Path) -> None:
    ((way, scored),) = read_scores(read_artifact(combined)).items()
    assert way.startswith("torch ")
    assert scored.expert_scores is not None
    assert scored.harmed is not None
    assert len(scored.expert_scores) == len(scored.harmed) == len(scored.scores)
    assert not (scored.harmed & ~scored.correct).any()


def test_a_small_validation_part_bounds_no_loss(combined: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(combined), TEXTS[0], "--cascade"]) == 2
    assert "--cascade: at least " in capsys.readouterr().err


def test_sure_answers_are_the_experts_and_all_others_the_models(combined: Path, certain: float) -> None:
    whole, cascade = distilora.load(combined, "fp32"), distilora.load(combined, "fp32", cascade=True)
    expected, answers = whole(TEXTS), cascade(TEXTS)
    alone = by_expert(whole)
    sure = [answer["score"] >= certain for answer in alone]
    assert 0 < sum(sure) < len(TEXTS)
    for answer, of_model, of_expert, is_sure in zip(answers, expected, alone, sure, strict=True):
        assert answer.pop("expert_alone") == is_sure
        source = {**of_expert, "truncated": False, "abstain": False} if is_sure else of_model
        assert answer == pytest.approx(source, abs=1e-5)
    assert cascade.cascade is not None
    assert cascade.cascade.sentence() == f"the n-gram expert answered {sum(sure) / 60:.1%} of 60 texts alone"
    assert list(pickle.loads(pickle.dumps(cascade))(iter(TEXTS))) == cascade(TEXTS)  # noqa: S301
    assert [each["score"] for each in map(cascade, TEXTS[:6])] == pytest.approx(
        [a["score"] for a in answers[:6]], abs=1e-5
    )


@pytest.mark.usefixtures("certain")
def test_tables_have_a_column_of_it(combined: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_csv(tmp_path / "new.csv", [*tiny_reviews(40, 5), (" ", 0)])
    assert (
        main(["predict", str(combined), "--cascade", "--input", str(source), "--output", str(tmp_path / "out.jsonl")])
        == 0
    )
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {row["expert_alone"] for row in rows} == {True, False, None}
    said = capsys.readouterr().err
    assert "or more it answers alone: with 95% confidence that costs at most 0.1 points of accuracy" in said
    assert "note: the n-gram expert answered" in said
    words = ["score", str(combined), str(source), "--output", str(tmp_path / "scored"), "--format", "jsonl"]
    assert main([*words, "--cascade"]) == 0
    assert "of 41 texts alone" in capsys.readouterr().err  # the first is a sample, to know the columns
    scored = [json.loads(line) for line in (tmp_path / "scored" / "shard-00000.jsonl").read_text().splitlines()]
    assert [row["expert_alone"] for row in scored] == [
        row["expert_alone"] for row in rows if row["expert_alone"] is not None
    ]
    assert main(words) == 2
    assert "was begun with --cascade, now without --cascade" in capsys.readouterr().err


@pytest.mark.usefixtures("certain")
def test_an_export_has_scores_of_its_own(combined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distilora.export import export

    monkeypatch.setattr(export, "verify", verify_here)
    export.export_run(combined, "onnx", tmp_path / "onnx")
    (scored,) = read_scores(read_artifact(tmp_path / "onnx")).values()
    assert scored.expert_scores is not None
    answers = distilora.load(tmp_path / "onnx", cascade=True)(TEXTS)
    assert {answer["expert_alone"] for answer in answers} == {True, False}


def test_what_a_cascade_needs(combined: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cascade: given, but .* has no n-gram expert; train with --lexicon nbsvm"):
        distilora.load(finished, cascade=True)
    with pytest.raises(ConfigError, match=r"^cascade: given together with lexicon none"):
        distilora.load(combined, cascade=True, lexicon="none")
    with pytest.raises(ConfigError, match=r"^cascade: given together with abstain_error"):
        distilora.load(combined, cascade=True, abstain_error=0.1)
    artifact = read_artifact(combined)
    ((way, scored),) = read_scores(artifact).items()
    before = dataclasses.replace(scored, expert_scores=None, harmed=None)

    def without(target: Path) -> None:
        shutil.copytree(artifact.folder, target, dirs_exist_ok=True)
        (target / "artifact.json").unlink()
        (target / SCORES).write_bytes(pack_scores({way: before}))

    write_artifact(tmp_path / "old", artifact, without, read_check(artifact.folder))
    with pytest.raises(ConfigError, match=r"^cascade: the model holds no scores of its n-gram expert"):
        distilora.load(tmp_path / "old", way.split()[1], cascade=True)
