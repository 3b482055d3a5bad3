"""Multi-label classification: labels in every form they are written in, thresholds from validation, any number of answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilora.config.schema import DataConfig
from distilora.data.examples import Example
from distilora.data.sources import open_source
from distilora.errors import ConfigError, DataError
from distilora.tasks.multilabel import MultiLabel, sigmoid

TASK = MultiLabel(["drama", "comedy", "war"], "text", "genres")


@pytest.mark.parametrize(
    ("cell", "indices"),
    [
        ("war; drama", (0, 2)), ("drama,comedy", (0, 1)), ("war | war", (2,)), ("", ()), (None, ()), (float("nan"), ()),
        (["comedy"], (1,)), ([], ()), ('["war", "comedy"]', (1, 2)), ("[]", ()), (np.asarray(["war"]), (2,)), ("drama", (0,)),
    ],
)  # fmt: skip
def test_labels_are_read_as_they_are_written(cell: Any, indices: tuple[int, ...]) -> None:
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    assert TASK.read({"text": "a film", "genres": cell}) == Example(("a film",), indices)


@pytest.mark.parametrize("cell", ["western", ["war", "western"], '["war"', {"war": 1}, ["war", None], [["war"]]])
def test_what_is_no_label_is_refused(cell: Any) -> None:
    with pytest.raises(DataError, match=r"data\.label_column: "):
        TASK.read({"text": "a film", "genres": cell})


def source_of(tmp_path: Path, rows: list[dict[str, Any]]) -> Any:
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return open_source(str(file))


def test_labels_are_found(tmp_path: Path) -> None:
    rows = [{"text": "a", "genres": ["war", "drama"]}, {"text": "b", "genres": []}, {"text": "c", "genres": ["comedy"]}]
    task = MultiLabel.from_source(DataConfig(), source_of(tmp_path, rows))
    assert task.labels == ("comedy", "drama", "war")
    assert MultiLabel(**task.settings).settings == task.settings


def test_a_column_for_each_label(tmp_path: Path) -> None:
    rows = [{"text": "a", "war": 1, "love": 0}, {"text": "b", "war": "no", "love": True}]
    config = DataConfig(label_columns=("war", "love"))
    task = MultiLabel.from_source(config, source_of(tmp_path, rows))
    assert task.labels == ("war", "love")
    assert [task.read(row).target for row in rows] == [(0,), (1,)]
    with pytest.raises(DataError, match=r"data\.label_columns: 'war' holds 2, 0 or 1 wanted"):
        task.read({"text": "a", "war": 2, "love": 0})
    with pytest.raises(ConfigError, match=r"data\.labels: 3 given for 2 label_columns"):
        MultiLabel.from_source(
            DataConfig(label_columns=("war", "love"), labels=("a", "b", "c")), source_of(tmp_path, rows)
        )


def test_labels_of_two_kinds_or_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.label_columns: given beside data\.label_column; drop one of the two$"
    ):
        DataConfig(label_columns=("war", "love"), label_column="crime")
    with pytest.raises(
        DataError, match=r"^data\.label_column: 'genres' holds no label in train; there is nothing to learn"
    ):
        MultiLabel.from_source(
            DataConfig(), source_of(tmp_path, [{"text": "a", "genres": []}, {"text": "b", "genres": ""}])
        )


def test_a_name_with_the_separator_of_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds '; ', which separates labels"):
        MultiLabel.from_source(DataConfig(), source_of(tmp_path, [{"text": "a", "genres": ["war; love", "drama"]}]))


def test_thresholds_are_kept_and_decide(tmp_path: Path) -> None:
    outputs = np.log(
        np.asarray([[0.3, 0.2, 0.9], [0.1, 0.3, 0.8], [0.4, 0.1, 0.2]])
        / [[0.7, 0.8, 0.1], [0.9, 0.7, 0.2], [0.6, 0.9, 0.8]]
    )
    decided = TASK.decided(outputs.astype(np.float32), [(0, 2), (1, 2), (0,)])
    assert isinstance(decided, MultiLabel)
    assert decided.thresholds is not None
    assert 0.1 < decided.thresholds[0] < 0.3
    answers = decided.decode(outputs.astype(np.float32), [], None)  # type: ignore[arg-type]
    assert [answer["labels"] for answer in answers] == ["drama; war", "comedy; war", "drama"]
    assert MultiLabel(**json.loads(json.dumps(decided.settings))).thresholds == decided.thresholds


def test_the_temperature_maximises_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    targets = [tuple(np.flatnonzero(row)) for row in rng.random((4000, 3)) < sigmoid(logits.astype(np.float32))]
    assert TASK.fit_temperature((3 * logits).astype(np.float32), targets) == pytest.approx(3, rel=0.05)
