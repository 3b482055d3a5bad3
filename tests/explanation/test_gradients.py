"""Attributions by gradients are complete, those of the model that answers, and shown word for word."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.explained import Counting
from support.families import SETTINGS
from support.networks import ROUTES, network_of
from support.tiny import tiny_reviews, write_tiny_encoder

from distilora.batching.rows import rows_of
from distilora.errors import ConfigError, DataError, MissingExtra
from distilora.explanation.explain import explain
from distilora.explanation.gradients import attribute
from distilora.inference.predictor import Predictor, load
from distilora.model.encoders.families import ARCHITECTURES

METHODS = ("integrated-gradients", "gradient-x-input")
TEXTS = [text for text, _ in tiny_reviews(6, 7)]
SPECIAL = np.array([True] + [False] * 13 + [True])


@pytest.fixture(scope="module")
def predictor(runs: dict[str, Path]) -> Predictor:
    return load(runs["full"], "fp32", "cpu")


def log_odds(p: float) -> float:
    return float(np.log(p / (1 - p)))


def test_the_error_falls_with_the_steps(predictor: Predictor) -> None:
    errors = [
        np.mean([explain(predictor, t, "integrated-gradients", steps=n).completeness_error for t in TEXTS])
        for n in (1, 8, 64)
    ]
    differences = [explain(predictor, t, "integrated-gradients", steps=1).difference for t in TEXTS]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.01 * np.mean(np.abs(differences))


@pytest.mark.parametrize("method", METHODS)
def test_parts_add_up(predictor: Predictor, method: str) -> None:
    explanation = explain(predictor, TEXTS[0], method)
    total = sum(part.weight for part in explanation.parts) + explanation.special
    assert abs(total - explanation.difference) == pytest.approx(explanation.completeness_error, abs=1e-9)
    assert (explanation.special == 0) == (method == "integrated-gradients")
    assert explanation.steps == (7 if method == "integrated-gradients" else None)
    assert explanation.probability == pytest.approx(predictor(TEXTS[0])["score"], abs=1e-5)
    assert "".join(part.word for part in explanation.parts) == TEXTS[0].replace(" ", "")
    other = explain(predictor, TEXTS[0], method, label="neg" if explanation.label == "pos" else "pos")
    assert [p.weight for p in other.parts] == pytest.approx([-p.weight for p in explanation.parts], abs=1e-4)
    assert explanation.measure == "log-odds"


def test_the_difference_is_of_calibrated_answers(predictor: Predictor) -> None:
    explanation = explain(predictor, TEXTS[0], "integrated-gradients")
    network = predictor.backend.network
    ids = predictor.tokenizer.encode(TEXTS[0]).ids
    blank = rows_of([[[ids[0], *[network.padding_id] * (len(ids) - 2), ids[-1]]]])
    (answer,) = predictor.task.decode(
        predictor.backend.run(blank) / predictor.artifact.temperature, [], predictor.tokenizer
    )
    expected = log_odds(explanation.probability) - log_odds(answer[f"p_{explanation.label}"])
    assert explanation.difference == pytest.approx(expected, abs=1e-3)
    assert predictor.artifact.temperature != 1


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_family_and_route(family: str, tmp_path: Path) -> None:
    folder = write_tiny_encoder(tmp_path / family, family, **SETTINGS.get(family, {}))
    rows = rows_of([[np.random.default_rng(3).integers(5, 50, 15).tolist()]])
    attributions = []
    for route in ROUTES:
        network = network_of(folder, route)
        trained = set(network.trained())
        network(rows)
        many = attribute(network, rows, SPECIAL, 1, 1.5, 300, 2048)
        assert abs(many.tokens.sum() - many.difference) < 0.01 * np.abs(many.tokens).sum()
        assert np.flatnonzero(many.tokens == 0).tolist() == [0, 14]
        assert set(network.trained()) == trained

        once = attribute(network, rows, SPECIAL, 1, 1.5, None, 2048)
        with torch.no_grad():
            _, embedded = network.through_embeddings(rows)
            values = [network.through_embeddings(rows, a * embedded)[0][0] / 1.5 for a in (0.99, 1.01)]
        slope = float(((values[1] - values[0]) @ torch.tensor([-1.0, 1.0])) / 0.02)
        assert once.tokens.sum() == pytest.approx(slope, rel=0.02, abs=0.02)
        attributions.append((many.tokens, once.tokens))
    for tokens in attributions[1:]:
        np.testing.assert_allclose(tokens, attributions[0], atol=1e-3)


def test_steps_together_or_one_by_one(predictor: Predictor) -> None:
    rows = rows_of([[predictor.tokenizer.encode(TEXTS[1]).ids]])
    special = np.zeros(len(rows.ids), bool)
    attributions = [
        attribute(predictor.backend.network, rows, special, 0, 1.0, 7, budget).tokens for budget in (1, 64, 9999)
    ]
    np.testing.assert_allclose(attributions[1:], [attributions[0]] * 2, atol=1e-4)
    assert np.abs(attributions[0]).max() > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_sentences_are_the_sum_of_their_words(predictor: Predictor, method: str) -> None:
    text = "the film was superb! a dull ending? the music (really.) warm"
    words, sentences = (explain(predictor, text, method, level) for level in ("word", "sentence"))
    assert [part.word for part in sentences.parts] == re.findall(r"[^ ].*?[!?)](?= )|warm", text)
    for part in sentences.parts:
        own = [word.weight for word in words.parts if part.start <= word.start < part.end]
        assert part.weight == pytest.approx(sum(own), abs=1e-9)
    assert max(abs(part.weight) for part in sentences.parts) > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_what_was_cut_has_no_weight(predictor: Predictor, method: str) -> None:
    text = " ".join(f"{word} film" for word in ["dull", *["superb"] * 50])
    explanation = explain(predictor, text, method)
    read = [part.weight is not None for part in explanation.parts]
    assert sum(read) == 62  # of 64 tokens two are special
    assert read in ([True] * 62 + [False] * 40, [False] * 40 + [True] * 62)
    assert explanation.cut == 40
    assert any(part.weight for part in explanation.parts)


@pytest.mark.parametrize("route", ROUTES)
def test_in_bf16(encoder: Path, route: str) -> None:
    rows = rows_of([[np.random.default_rng(3).integers(5, 50, 15).tolist()]])
    for steps in (32, None):
        exact, rounded = (
            attribute(network_of(encoder, route, precision), rows, SPECIAL, 1, 1.0, steps, 2048, precision)
            for precision in ("fp32", "bf16")
        )
        assert np.corrcoef(exact.tokens, rounded.tokens)[0, 1] > 0.98
        assert not np.array_equal(exact.tokens, rounded.tokens)


def test_merged_and_4bit_models(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from support.fresh import verify_here

    from distilora.export import export

    monkeypatch.setattr(export, "verify", verify_here)  # test_merge has a fresh process for it
    export.export_run(runs["lora"], "merged", tmp_path / "merged")
    plain, merged = (load(folder, "fp32", "cpu") for folder in (runs["lora"], tmp_path / "merged"))
    explanations = [explain(model, TEXTS[2], "integrated-gradients", steps=32) for model in (plain, merged)]
    weights = [[part.weight for part in model.parts] for model in explanations]
    assert weights[1] == pytest.approx(weights[0], abs=1e-3)
    quantised = explain(load(runs["qlora"], "fp32", "cpu"), TEXTS[2], "integrated-gradients", steps=64)
    assert quantised.completeness_error < 0.05 * sum(abs(part.weight) for part in quantised.parts)


@pytest.mark.parametrize("method", METHODS)
def test_what_gradients_cannot_explain(predictor: Predictor, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Predictor(predictor.artifact, Counting(predictor))
    with pytest.raises(
        ConfigError, match=f"^explain.method: {method} needs the torch backend; use --method leave-one-out$"
    ):
        explain(other, TEXTS[0], method)
    with pytest.raises(DataError, match=r"^explain.label: there is no label 'good'; there are neg, pos$"):
        explain(predictor, TEXTS[0], method, label="good")
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(
        MissingExtra, match=r"^captum.* is not installed; install it with: pip install 'distilora\[explain\]'$"
    ):
        explain(predictor, TEXTS[0], method)
    assert all(p.requires_grad for p in predictor.backend.network.parameters())
