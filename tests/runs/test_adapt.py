"""Adaptation: the encoder learns to tell replaced words in the run's own texts; the adapter then goes on to the labels."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.fresh import verify_here
from support.stopping import told
from support.tiny import tiny_config, tiny_reviews, write_csv

from distilora.config.schema import RunConfig
from distilora.errors import ConfigError, Interrupted
from distilora.export import save as saving
from distilora.runs import run as runs
from distilora.runs.run import Run, train
from distilora.training import loop


@pytest.fixture
def config(tmp_path: Path, encoder: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(saving, "verify", verify_here)
    changes = {"adaptation__tokens": 4000, "adaptation__rate": 1.0, "training__epochs": 2, "data__train_size": 100}
    return tiny_config(tmp_path / "run", reviews, encoder, **changes)


def test_it_reads_the_runs_own_texts_and_hands_its_adapter_on(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted = []
    monkeypatch.setattr(runs, "adapt", lambda *given: adapted.append((given, adapt(*given))) or adapted[0][1])
    summary = train(config)
    (_, network, texts, _), result = adapted[0]
    labelled = 300 - round(300 * 0.1) - 40
    assert sum(rows.groups for rows in texts) == labelled  # training and spare; neither validation nor heldout
    figures = summary["adaptation"]
    assert figures["texts"] == labelled
    assert 4000 <= figures["tokens"] < 4100
    assert figures["told_apart"] > 0.5
    assert set(result.weights) < set(network.trained())
    assert not any("classifier" in name for name in result.weights)
    assert any(weight.abs().sum() > 0 for name, weight in result.weights.items() if "lora_B" in name)
    assert not (Path(config.output) / "adaptation").exists()
    assert "told right, original or replaced" in (Path(config.output) / "report.html").read_text("utf-8")


def test_it_goes_on_where_it_stopped(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = replace(config, output=config.output + "-whole")
    train(whole)
    make_update, calls = loop.make_update, []

    def stops(*arguments, **named):
        calls.append(1)
        if len(calls) in (3, 12):
            raise KeyboardInterrupt
        return make_update(*arguments, **named)

    monkeypatch.setattr(loop, "make_update", stops)
    for resume in (False, True):
        with pytest.raises(Interrupted):
            train(config, resume=resume)
    train(config, resume=True)
    assert told(Path(config.output)) == told(Path(whole.output))


def test_the_student_starts_from_it_too(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restored = []
    monkeypatch.setattr(
        runs, "restore", lambda weights, network: restored.append(set(weights) < set(network.trained()))
    )
    unlabelled = write_csv(tmp_path / "unlabelled.csv", tiny_reviews(50, 3), ("text", "note"))
    data = replace(config.data, unlabelled=str(unlabelled))
    train(replace(config, data=data, distillation=replace(config.distillation, start="encoder")))
    assert restored == [True]
    metrics = json.loads((Path(config.output) / "metrics.json").read_text("utf-8"))
    assert metrics["adaptation"]["texts"] == 300 - round(300 * 0.1) - 40 + 50


def test_a_method_that_trains_the_head_alone_is_refused(config: RunConfig) -> None:
    adapter = replace(config.adapter, method="head")
    with pytest.raises(ConfigError, match=r"adaptation\.tokens: 4,000 given, but method head trains nothing"):
        Run(replace(config, adapter=adapter))


adapt = runs.adapt
