"""A run with fragments trains on parts of its texts, too, with the targets of the whole, labelled or not."""

from pathlib import Path

import numpy as np
import pytest
from support.fresh import verify_here
from support.tiny import tiny_config, tiny_reviews, write_csv

from distilora.config.parse import parse
from distilora.config.schema import RunConfig
from distilora.errors import ConfigError
from distilora.export import save as saving
from distilora.runs import fitting
from distilora.runs.run import Run, train
from distilora.training.loop import fit


def joined_reviews(count: int, seed: int) -> list[tuple[str, str]]:
    """Reviews of three sentences each."""
    return [(" ".join([text] * 3), label) for text, label in tiny_reviews(count, seed)]


@pytest.fixture
def config(tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(saving, "verify", verify_here)
    data = write_csv(tmp_path / "long.csv", joined_reviews(200, 0))
    return tiny_config(tmp_path / "run", data, encoder, data__fragments=0.5, training__expert_targets=0.5)


def test_training_goes_over_texts_and_fragments(config: RunConfig) -> None:
    with Run(config) as run:
        run.read()
        texts, fragments = len(run.parts.train), len(run.fragments.examples)
        assert fragments == round(0.5 * texts)
        assert run.train_tokens.rows.groups == texts + fragments
        whole, parts = np.split(np.stack(run._training_targets()), [texts])
        np.testing.assert_array_equal(parts, whole[run.fragments.source])
        assert run.train_tokens.rows.group_lengths[texts:].mean() < run.train_tokens.rows.group_lengths[:texts].mean()
    summary = train(config)
    assert (summary["data"]["train"], summary["data"]["fragments"]) == (texts, fragments)
    assert summary["training"]["updates"] == 8 * -(-(texts + fragments) // 16)


def test_a_student_learns_from_fragments_of_unlabelled_texts(
    config: RunConfig, tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets: list[np.ndarray] = []

    def noted(network, labelled, *arguments, **named):
        targets.append(np.asarray(labelled.targets))
        return fit(network, labelled, *arguments, **named)

    monkeypatch.setattr(fitting, "fit", noted)
    unlabelled = write_csv(tmp_path / "unlabelled.csv", joined_reviews(100, 3), ("text", "note"))
    changes = {"data__fragments": 0.5, "data__unlabelled": str(unlabelled), "training__epochs": 2}
    summary = train(tiny_config(tmp_path / "other", tmp_path / "long.csv", encoder, **changes))
    assert (summary["distillation"]["used"], summary["distillation"]["fragments"]) == (100, 50)
    teacher, student = targets
    soft = student[len(teacher) :]
    assert len(soft) == 150
    assert {tuple(row) for row in soft[100:]} <= {tuple(row) for row in soft[:100]}


def test_a_share_is_wanted() -> None:
    with pytest.raises(ConfigError, match=r"data\.fragments: 2\.0 given, a share from 0 to 1 wanted"):
        parse(RunConfig, ["--data.fragments", "2"])
