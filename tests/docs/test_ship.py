"""What `python -m bench.imdb --ship` copies into the package: a model that loads, and its figures as a service tells them."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.harness import ship as module
from distilora.artifact.format import read_artifact
from distilora.serving import cards
from distilora.serving.limits import Limits
from distilora.serving.pool import Pool


def test_a_shipped_model_has_its_figures(
    finished: Path, metrics: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    module.ship(finished, "tiny", "as a test")
    assert "metrics.json" in read_artifact(tmp_path / "tiny").files
    measured = metrics["evaluations"][0]
    card = cards.card(Pool("fp32").add("tiny", str(tmp_path / "tiny")), Limits(), first=True)
    assert card["figures"]["accuracy"] == measured["metrics"]["accuracy"]
    assert card["measured_on"] == {"split": measured["split"], "examples": measured["examples"]}
    assert card["reliability"] == measured["figures"]["reliability"]


def test_nothing_but_figures_is_taken(metrics: dict[str, Any]) -> None:
    told = module.told(metrics)
    assert list(told) == ["evaluations"]
    for evaluation in told["evaluations"]:
        assert set(evaluation) == {"split", "examples", "metrics", "figures"}
        assert set(evaluation["figures"]) == {"reliability"}
    assert len(json.dumps(told)) < len(json.dumps(metrics))
