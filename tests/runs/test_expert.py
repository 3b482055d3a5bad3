"""A run with an n-gram expert: combined and encoder-only figures side by side, saved, loaded, explained, exported."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.command import failed
from support.fresh import verify_here
from support.tiny import tiny_config, tiny_reviews, write_csv

import distilora
from distilora.artifact.check import read_check
from distilora.artifact.format import read_artifact
from distilora.cli.main import main
from distilora.config.parse import parse
from distilora.config.schema import RunConfig
from distilora.errors import ArtifactError, ConfigError
from distilora.explanation.explain import explain
from distilora.export import export
from distilora.lexicon.nbsvm import as_logits
from distilora.runs.run import train

TEXTS = [text for text, _ in tiny_reviews(40, 9)]


@pytest.fixture(scope="module")
def combined(tmp_path_factory: pytest.TempPathFactory, encoder: Path, reviews: Path) -> Path:
    folder = tmp_path_factory.mktemp("combined") / "run"
    config = tiny_config(folder, reviews, encoder, training__epochs=4, data__train_size=120)
    tree = {**vars(config), "lexicon": "nbsvm"}
    train(RunConfig(**tree))
    return folder


@pytest.fixture(scope="module")
def metrics(combined: Path) -> dict:
    return json.loads((combined / "metrics.json").read_text("utf-8"))


def test_each_view_has_figures_of_its_own(combined: Path, metrics: dict) -> None:
    for split in metrics["evaluations"]:
        views = split["views"]["metrics"]
        assert split["metrics"] == views["combined"]
        assert views["encoder"]["log_loss"] != views["combined"]["log_loss"]
        for name in ("encoder", "expert"):
            gain = split["views"]["gain"][name]
            expected = views["combined"]["accuracy"]["value"] - views[name]["accuracy"]["value"]
            assert gain["value"] == pytest.approx(expected)
    validation = metrics["evaluations"][-1]["views"]["metrics"]
    losses = [validation[name]["log_loss"]["value"] for name in ("combined", "encoder", "expert")]
    assert losses[0] <= min(losses[1:]) + 1e-6  # the weights minimise it there
    page = (combined / "report.html").read_text("utf-8")
    assert "encoder alone" in page
    assert "n-gram expert alone" in page
    assert "encoder alone: " in (combined / "README.md").read_text("utf-8")


def test_the_expert_is_fitted_on_what_train_size_leaves_out(combined: Path, metrics: dict) -> None:
    data = metrics["data"]
    assert data["train"] == 120
    assert (
        read_artifact(combined).lexicon["fitted_on"] == 300 - data["validation"] - metrics["evaluations"][0]["examples"]
    )
    (nbsvm,) = (row for row in metrics["evaluations"][0]["ngram_baselines"] if row["name"] == "nbsvm")
    assert nbsvm["fitted_on"] == 230
    assert nbsvm["value"] == metrics["evaluations"][0]["views"]["metrics"]["expert"]["accuracy"]["value"]


def test_a_prediction_is_the_weighted_sum(combined: Path) -> None:
    together, alone = distilora.load(combined, "fp32"), distilora.load(combined, "fp32", lexicon="none")
    weights = read_artifact(combined).lexicon["weights"]
    expert = together.calibrate.expert
    assert expert is not None
    assert alone.calibrate.expert is None
    temperature = read_artifact(combined).temperature

    logits = expert.logits([together.example(text, "text") for text in TEXTS])
    odds = [answer["p_pos"] / (1 - answer["p_pos"] + 1e-300) for answer in alone(TEXTS)]
    margin = weights["encoder"] * temperature * np.log(odds) + weights["expert"] * (logits[:, 1] - logits[:, 0])
    answers = [answer["p_pos"] for answer in together(TEXTS)]
    np.testing.assert_allclose(answers, 1 / (1 + np.exp(-margin)), atol=1e-4)
    assert [together(text) for text in TEXTS[:3]] == together(TEXTS[:3])


def test_a_lexicon_that_was_changed_is_refused(combined: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(combined, copy)
    file = copy / "model" / "lexicon" / "lexicon.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"lexicon\.safetensors: changed since it was written"):
        distilora.load(copy)


def test_the_check_holds_the_experts_logits(combined: Path) -> None:
    check = read_check(combined / "model")
    expert = distilora.load(combined).calibrate.expert
    assert expert is not None
    assert check.expert is not None
    assert np.array_equal(expert.logits(check.examples), check.expert)


def test_explanations_show_exact_ngrams(combined: Path) -> None:
    predictor = distilora.load(combined, "fp32")
    text = "a superb film and a dull ending"
    explanation = explain(predictor, text)
    assert explanation.ngrams
    weights = {text[n.start : n.end]: n.weight for n in explanation.ngrams}
    sign = 1 if explanation.label == "pos" else -1
    assert sign * weights["superb"] > 0 > sign * weights["dull"]
    expert = predictor.calibrate.expert
    assert expert is not None
    bias = as_logits(expert.lexicon.bias[None], 2)[0]
    logits = expert.logits([predictor.example(text, "text")])[0] - bias
    margin = sign * expert.weights.expert * (logits[1] - logits[0])
    assert sum(n.weight for n in explanation.ngrams) == pytest.approx(margin, abs=1e-4)
    assert explain(distilora.load(combined, "fp32", lexicon="none"), text).ngrams is None
    gradients = explain(predictor, text, "gradient-x-input")
    assert gradients.probability == pytest.approx(explanation.probability, abs=1e-4)
    assert gradients.ngrams == explanation.ngrams


def test_exports_carry_it_or_say_so(
    combined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "verify", verify_here)
    together, alone = distilora.load(combined, "fp32"), distilora.load(combined, "fp32", lexicon="none")
    export.export_run(combined, "onnx", tmp_path / "onnx")
    carried = distilora.load(tmp_path / "onnx")
    assert [a["p_pos"] for a in carried(TEXTS)] == pytest.approx([a["p_pos"] for a in together(TEXTS)], abs=1e-4)
    capsys.readouterr()
    export.export_run(combined, "merged", tmp_path / "merged")
    assert "merged cannot carry the run's n-gram expert" in capsys.readouterr().err
    assert not (tmp_path / "merged" / "lexicon").exists()
    merged = distilora.load(tmp_path / "merged", "fp32")
    assert [a["p_pos"] for a in merged(TEXTS)] == pytest.approx([a["p_pos"] for a in alone(TEXTS)], abs=1e-4)


def test_evaluate_measures_either(combined: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "new.csv", tiny_reviews(60, 5))
    words = ["evaluate", str(combined), "--data.path", str(data), "--evaluation.bootstrap", "100", "--output"]
    assert main([*words, str(tmp_path / "both")]) == 0
    assert main([*words, str(tmp_path / "encoder"), "--lexicon", "none"]) == 0
    both, encoder = (
        json.loads((tmp_path / name / "metrics.json").read_text())["evaluation"] for name in ("both", "encoder")
    )
    assert "views" not in encoder
    assert both["views"]["metrics"]["encoder"]["accuracy"] == encoder["metrics"]["accuracy"]


def test_checks_have_the_encoder_beside_it(combined: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(combined), "--checks", "--output", str(tmp_path / "checks")]) == 0
    checks = json.loads((tmp_path / "checks" / "metrics.json").read_text())["checks"]
    assert checks["encoder_alone"]["cases"] == checks["own"]["cases"]
    assert "The encoder alone, without its n-gram expert: " in capsys.readouterr().out


def test_texts_of_the_expert_count_as_seen(combined: Path, reviews: Path, tmp_path: Path) -> None:
    # all 300 but the 30 that are held out were trained or chosen on, by the encoder or by the expert
    assert main(["evaluate", str(combined), "--data.path", str(reviews), "--output", str(tmp_path / "seen")]) == 0
    notes = json.loads((tmp_path / "seen" / "metrics.json").read_text())["notes"]
    assert any(note.startswith("270 of these 300 texts were trained or chosen on") for note in notes)


def test_many_examples_are_sampled(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from distilora.data.examples import Example, Examples
    from distilora.runs import expert

    monkeypatch.setattr(expert, "MOST_TEXTS", 10)
    examples = Examples("labelled", [Example((str(i),), i % 2) for i in range(25)])
    assert len(expert.sampled(examples)) == 10
    assert "random 10 of 25 labelled examples" in capsys.readouterr().err
    assert expert.sampled(examples.take(range(10))).items == examples.items[:10]


def test_an_expert_can_teach_alone(
    encoder: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distilora.export import save as saving

    monkeypatch.setattr(saving, "verify", verify_here)
    summary = train(tiny_config(tmp_path / "run", reviews, encoder, training__expert_targets=1.0))  # no label at all
    assert "views" not in summary["evaluations"][0]  # it taught, and is no part of the model
    assert not (tmp_path / "run" / "model" / "lexicon").exists()
    assert summary["evaluations"][-1]["metrics"]["accuracy"]["value"] > 0.8


def test_what_is_refused(encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"training\.expert_targets: 1\.5 given, a share from 0 to 1 wanted"):
        parse(RunConfig, ["--training.expert_targets", "1.5"])
    assert "lexicon" in failed(["train", "--lexicon", "svm"], capsys)


def test_baseline_needs_no_encoder(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("encoder: {name: nowhere/at-all}")
    words = ["baseline", str(recipe), "--data.path", str(reviews), "--evaluation.bootstrap", "100", "--quiet"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "fitted on 216 labels" in out
    assert "NB-SVM (n-grams)" in out
    assert main([*words, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [split["split"] for split in summary["splits"]] == ["heldout", "validation"]
    for split in summary["splits"]:
        for row in split["baselines"]:
            assert row["metrics"]["accuracy"]["low"] <= row["metrics"]["accuracy"]["value"]


@pytest.mark.parametrize(
    "option", ["--overwrite", "--output=x", "--training.epochs=3", "--data.unlabelled=x", "--lexicon=nbsvm"]
)
def test_baseline_refuses_and_hides_what_it_does_not_read(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = option.split("=")[0]
    assert failed(["baseline", option], capsys).startswith(f"{name}: goes with distilora train")
    assert main(["baseline", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--data.path" in text
    assert name not in text


def test_no_expert_to_leave_out(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = failed(["predict", str(finished), "superb", "--lexicon", "none"], capsys)
    assert said == f"--lexicon: none given, but {finished / 'model'} has no n-gram expert to leave out; drop it"
