"""Rare classes go where they can: one example to train on, the rest as the stratified split allows; what cannot be is said."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.fresh import verify_here
from support.tiny import divided, tiny_config, tiny_reviews, write_csv

from distilora.config.schema import DataConfig
from distilora.errors import ConfigError
from distilora.export import save as saving
from distilora.runs.run import train


def with_rare(count: int, **rare: int) -> list[tuple[str, str]]:
    """Tiny reviews, the last ones of other classes."""
    names = [name for name, examples in rare.items() for _ in range(examples)]
    rows = tiny_reviews(count)
    return [*rows[: count - len(names)], *((text, name) for (text, _), name in zip(rows[::-1], names, strict=False))]


def parts_of(path: Path, **settings: Any) -> SimpleNamespace:
    return divided(DataConfig(path=str(path), **settings))


def counts(parts: SimpleNamespace) -> list[Counter[str]]:
    """By label, of train, validation and what is held out."""
    splits = [parts.train, parts.validation, *([parts.read_test()] if parts.read_test else [])]
    return [Counter(parts.task.labels[target] for target in split.targets) for split in splits]


@pytest.mark.parametrize("seed", range(4))
def test_a_class_of_three_in_three_hundred(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = parts_of(write_csv(tmp_path / "r.csv", with_rare(300, mixed=3, odd=1)), seed=seed)
    train_counts, validation, heldout = counts(parts)
    assert [sum(part.values()) for part in (train_counts, validation, heldout)] == [216, 54, 30]
    assert train_counts["mixed"] + validation["mixed"] + heldout["mixed"] == 3
    assert train_counts["mixed"] >= 1
    assert (train_counts["odd"], validation["odd"], heldout["odd"]) == (1, 0, 0)
    (note,) = parts.notes
    assert "'odd' has 1 example in train, none in validation, none in heldout" in note
    assert f"'mixed' has {train_counts['mixed']} examples in train" in note
    assert f"warning: {note}\n" in capsys.readouterr().err


def test_classes_that_are_not_rare_are_not_mentioned(tmp_path: Path) -> None:
    assert parts_of(write_csv(tmp_path / "r.csv", with_rare(300, mixed=60))).notes == []


def test_many_rare_classes_are_counted(tmp_path: Path) -> None:
    rare = {f"class{n}": 1 for n in range(40)}
    (note,) = parts_of(write_csv(tmp_path / "r.csv", with_rare(300, **rare))).notes
    assert "'class4' has" in note
    assert "'class5' has" not in note
    assert "; and 35 more." in note


def test_as_small_as_it_gets(tmp_path: Path) -> None:
    parts = parts_of(write_csv(tmp_path / "r.csv", tiny_reviews(4)))
    assert counts(parts)[0] == {"neg": 1, "pos": 1}
    assert sorted([*counts(parts)[1].elements(), *counts(parts)[2].elements()]) == ["neg", "pos"]


def test_what_cannot_be_held_out_and_the_advice(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = write_csv(tmp_path / "data" / "train.csv", tiny_reviews(2))
    advice = (
        r"add examples, or give splits of their own with --data\.validation_split, and --data\.test_path or "
        r"--data\.test_split none$"
    )
    with pytest.raises(
        ConfigError, match=rf"^data\.heldout: none of 2 examples can be spared .* copies stay together\); {advice}"
    ):
        parts_of(path)
    write_csv(tmp_path / "data" / "validation.csv", tiny_reviews(6, 1))
    settings = {"validation_split": "validation"}
    with pytest.raises(
        ConfigError, match=r"^data\.heldout: none of 2 .*; add examples, or give --data\.test_split none$"
    ):
        parts_of(path.parent, **settings)
    assert len(parts_of(path.parent, **settings, test_split="none").train) == 2
    test = write_csv(tmp_path / "test.csv", tiny_reviews(6, 2))
    assert len(parts_of(path.parent, **settings, test_path=str(test)).train) == 2
    write_csv(path, tiny_reviews(20))
    assert len(parts_of(path).train) == 15


def test_what_cannot_be_validated_on_and_the_advice(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "r.csv", tiny_reviews(3))
    with pytest.raises(
        ConfigError, match=r"^data\.validation_size: none of 2 .*; add examples, or give --data\.test_split none, "
    ):
        parts_of(path)
    assert [sum(part.values()) for part in counts(parts_of(path, test_split="none"))] == [2, 1]
    write_csv(path, tiny_reviews(2))
    with pytest.raises(
        ConfigError, match=r"^data\.validation_size: none of 2 .* give a split of their own with --data\.validation_"
    ):
        parts_of(path, test_split="none")


def test_groups_too_large_to_be_spared_and_the_advice(tmp_path: Path) -> None:
    rows = [(*row, "first" if n < 170 else "second") for n, row in enumerate(tiny_reviews(300))]
    path = write_csv(tmp_path / "r.csv", rows, ("text", "label", "film"))
    with pytest.raises(
        ConfigError, match=r"^data\.validation_size: none of 170 .*copies and equal values of 'film' stay together"
    ):
        parts_of(path, group_column="film")
    parts = parts_of(path, group_column="film", test_split="none")
    assert (len(parts.train), len(parts.validation)) == (170, 130)


def test_a_part_larger_than_asked_for_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(*row, f"film{n // 60}") for n, row in enumerate(tiny_reviews(300))]
    parts = parts_of(write_csv(tmp_path / "r.csv", rows, ("text", "label", "film")), group_column="film")
    assert [sum(part.values()) for part in counts(parts)] == [180, 60, 60]
    assert "note: data.heldout: 60 examples instead of 30: copies and groups stay together\n" in capsys.readouterr().err


def test_a_run_with_classes_that_are_not_measured(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "verify", verify_here)
    path = write_csv(tmp_path / "r.csv", with_rare(120, mixed=3, odd=1))
    summary = train(tiny_config(tmp_path / "run", path, encoder, training__epochs=1, training__validations=1))
    assert any(note.startswith("Rare classes: ") for note in summary["notes"])
    heldout = summary["evaluations"][0]
    assert heldout["labels"] == ["mixed", "neg", "odd", "pos"]
    assert sum(heldout["figures"]["confusion"][2]) == 0  # of class odd
    assert heldout["metrics"]["auroc"] == {"value": None, "low": None, "high": None}
    assert all(
        heldout["metrics"][name]["value"] is not None for name in ("accuracy", "macro_f1", "mcc", "log_loss", "brier")
    )
    assert "Rare classes: " in (tmp_path / "run" / "report.html").read_text("utf-8")
