"""A run that starts from a former one: its adapter, its head label by label, and no silence about texts that both saw."""

import dataclasses
from pathlib import Path

import pytest
import torch
from support.tiny import tiny_config, tiny_reviews, write_csv

from distilora.artifact.format import read_artifact
from distilora.errors import ConfigError
from distilora.inference.backends.torch_backend import open_network
from distilora.runs.run import Run, train


def other_labels(path: Path, names: dict[str, str], count: int = 120, seed: int = 5) -> Path:
    return write_csv(path, [(text, names[label]) for text, label in tiny_reviews(count, seed)])


def begun(config, finished: Path):
    with Run(dataclasses.replace(config, init_from=str(finished))) as run:
        run.read()
        return run.build(), run


def test_weights_are_the_former_runs(tmp_path: Path, finished: Path, encoder: Path) -> None:
    data = other_labels(tmp_path / "data.csv", {"pos": "pos", "neg": "neg"})
    network, run = begun(tiny_config(tmp_path / "run", data, encoder), finished)
    former = open_network(read_artifact(finished), "fp32", torch.device("cpu")).trained()
    for name, weight in network.trained().items():
        assert torch.equal(weight, former[name]), name
    assert run.initial is not None
    assert run.initial["labels_kept"] == ["neg", "pos"]


def test_a_grown_head_keeps_the_rows_of_its_labels(tmp_path: Path, finished: Path, encoder: Path) -> None:
    rows = [(text, "mixed" if i % 3 == 0 else label) for i, (text, label) in enumerate(tiny_reviews(150, 5))]
    data = write_csv(tmp_path / "data.csv", rows)
    network, run = begun(tiny_config(tmp_path / "run", data, encoder), finished)
    former = open_network(read_artifact(finished), "fp32", torch.device("cpu")).trained()
    assert run.task.labels == ("mixed", "neg", "pos")
    (name,) = (
        name
        for name in network.trained()
        if name.endswith("classifier.modules_to_save.default.weight") and "pre_" not in name
    )
    assert torch.equal(network.trained()[name][1:], former[name])
    assert run.initial == {**run.initial, "labels_kept": ["neg", "pos"], "labels_new": ["mixed"]}


def test_it_begins_where_the_former_run_ended(tmp_path: Path, finished: Path, encoder: Path) -> None:
    data = other_labels(tmp_path / "data.csv", {"pos": "pos", "neg": "neg"}, 200)
    config = tiny_config(tmp_path / "run", data, encoder, training__epochs=1, training__learning_rate=1e-9)
    summary = train(dataclasses.replace(config, init_from=str(finished)))
    assert summary["evaluations"][0]["metrics"]["accuracy"]["value"] > 0.8
    assert summary["init_from"]["labels_kept"] == ["neg", "pos"]


def test_texts_of_the_former_run_are_told(tmp_path: Path, finished: Path, encoder: Path, reviews: Path) -> None:
    config = tiny_config(tmp_path / "run", reviews, encoder, training__epochs=1, data__seed=3)
    summary = train(dataclasses.replace(config, init_from=str(finished)))
    assert any(note.startswith("Leak: the run that this one started from") for note in summary["notes"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter__r": 4}, r"init_from: .* has the shape .*; give the settings of `adapter`"),
        ({"adapter__method": "full"}, r"init_from: .* holds peft weights, method full trains delta"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path, finished: Path, encoder: Path, reviews: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        begun(tiny_config(tmp_path / "run", reviews, encoder, **changes), finished)


def test_a_folder_without_a_run_is_refused(tmp_path: Path, encoder: Path, reviews: Path) -> None:
    with pytest.raises(ConfigError, match=r"^init_from: "):
        begun(tiny_config(tmp_path / "run", reviews, encoder), tmp_path / "nothing")
