"""Cross-view distillation: soft labels from expert and encoder, a student that is a plain adapter, resumed where it stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.fresh import verify_here
from support.stopping import told
from support.tiny import tiny_config, tiny_reviews, write_csv

import distilora
from distilora.batching.rows import joined, rows_of
from distilora.config.schema import RunConfig
from distilora.errors import Interrupted
from distilora.evaluation.views import step_lines
from distilora.export import save as saving
from distilora.runs import distil, fitting
from distilora.runs.run import train
from distilora.training import loop

CHANGES = {
    "data__train_size": 60, "training__epochs": 6, "training__validations": 2, "distillation__epochs": 2,
    "distillation__rate": 1.0,
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path, encoder: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(saving, "verify", verify_here)
    texts = [(text, "") for text, _ in [*tiny_reviews(200, 3), *tiny_reviews(20)]]  # the last 20 are the run's own
    unlabelled = write_csv(tmp_path / "unlabelled.csv", texts, ("text", "note"))
    return tiny_config(tmp_path / "run", reviews, encoder, data__unlabelled=str(unlabelled), **CHANGES)


def test_the_student_learns_from_both(config: RunConfig) -> None:
    summary = train(config)
    counts = summary["distillation"]
    assert counts["read"] == 220
    assert counts["used"] == 200
    assert sum(part["exact"] + part["near"] for part in counts["copies_removed"].values()) == 20
    for split in summary["evaluations"]:
        steps = {row["step"]: row for row in split["distillation"]}
        assert list(steps) == ["expert", "teacher_encoder", "teacher", "encoder"]
        assert steps["encoder"]["value"] == split["metrics"]["accuracy"]["value"]
        assert "gain" not in steps["expert"]
        gain = steps["encoder"]["value"] - steps["teacher"]["value"]
        assert steps["encoder"]["gain"]["value"] == pytest.approx(gain)
        assert f"  both combined: the teacher: accuracy {steps['teacher']['value']:.2%} (" in "\n".join(
            step_lines(split)
        )
    folder = Path(config.output)
    assert not (folder / "teacher").exists()
    assert not (folder / "model" / "lexicon").exists()  # a plain adapter: no n-gram part unless asked for
    page = (folder / "report.html").read_text("utf-8")
    assert "encoder trained on the labels" in page
    assert "copies" in page
    assert distilora.load(folder)("a superb film")["label"] in ("neg", "pos")


def test_it_goes_on_where_it_stopped(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    whole = dataclasses.replace(config, output=config.output + "-whole")
    train(whole)
    make_update, calls = loop.make_update, []

    def stops_at(update: int):
        def counted(*arguments, **named):
            calls.append(1)
            if len(calls) == update:
                raise KeyboardInterrupt
            return make_update(*arguments, **named)

        return counted

    for update in (10, 20):  # the teacher has 24 updates, the student 34
        calls.clear()
        monkeypatch.setattr(loop, "make_update", stops_at(update))
        with pytest.raises(Interrupted, match=r"--resume \S*run$"):
            train(config, resume=(Path(config.output) / "run.yaml").exists())
    labelled = []
    monkeypatch.setattr(loop, "make_update", make_update)
    label_texts = distil.label_texts
    monkeypatch.setattr(distil, "label_texts", lambda *a, **k: labelled.append(1) or label_texts(*a, **k))
    train(config, resume=True)
    assert told(Path(config.output)) == told(Path(whole.output))
    assert len(labelled) <= 1


def test_soft_labels_are_read_again(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    fit = loop.fit

    def fails_as_student(network, labelled, *arguments, **named):
        if named["checkpoints"] == "checkpoints":
            seen.append(np.stack(labelled.targets))
            if len(seen) == 1:
                raise KeyboardInterrupt
        return fit(network, labelled, *arguments, **named)

    monkeypatch.setattr(fitting, "fit", fails_as_student)
    with pytest.raises(Interrupted):
        train(config)
    monkeypatch.setattr(distil, "label_texts", None)  # must not be called
    train(config, resume=True)
    assert np.array_equal(*seen)
    assert seen[0].shape == (260, 2)
    np.testing.assert_allclose(seen[0].sum(axis=1), 1, atol=1e-5)
    assert set(seen[0][:60].ravel()) == {0.0, 1.0}  # labels stay as they are
    assert json.loads((Path(config.output) / "metrics.json").read_text())["distillation"]["used"] == 200


def test_rows_are_joined() -> None:
    first, second = rows_of([[[1, 2], [3]], [[4]]]), rows_of([[[5, 6, 7]], [[8], [9]]])
    both = joined([first, second])
    assert both.groups == 4
    for part, groups in ((first, [0, 1]), (second, [2, 3])):
        again = both.take(groups)
        for name in ("ids", "offsets", "row", "group"):
            assert np.array_equal(getattr(again, name), getattr(part, name))
