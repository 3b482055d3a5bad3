"""A learning curve on a tiny encoder: nested subsets, one set of examples, nothing fitted outside of them; restarts, refusals."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.command import failed
from support.pages import Page
from support.tiny import tiny_config, tiny_reviews, write_csv

from distilora.cli.main import main
from distilora.config.parse import to_tree
from distilora.config.schema import RunConfig
from distilora.errors import ConfigError, Interrupted, OutputError
from distilora.runs import curve as module
from distilora.runs import run as runs
from distilora.runs.curve import epochs_for, learning_curve

Captured = pytest.CaptureFixture[str]
BAD, GOOD = "dull awful boring".split(), "superb moving warm".split()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv of three classes, one of them rare."""
    rng = random.Random(0)
    words = {"bad": BAD, "good": GOOD, "mixed": [*BAD[:1], *GOOD[:1]]}
    rows = []
    for i in range(240):
        label = "mixed" if i % 8 == 0 else ("good", "bad")[i % 2]
        rows.append((" ".join([*rng.choices(words[label], k=3), "film", f"{i}."]), label))
    return write_csv(tmp_path_factory.mktemp("three") / "three.csv", rows)


def config_for(data: Path, encoder: Path, **changes: object) -> RunConfig:
    return tiny_config(Path("unused"), data, encoder, training__epochs=1, **changes)


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory, encoder: Path, three: Path) -> Path:
    """Folder of a finished curve with all four methods."""
    folder = tmp_path_factory.mktemp("curve") / "curve"
    config = RunConfig(**{**vars(config_for(three, encoder)), "lexicon": "nbsvm"})
    learning_curve(config, folder, (20, 60, 1_000), updates=12)
    return folder


@pytest.fixture(scope="module")
def summary(curve: Path) -> dict:
    return json.loads((curve / "curve.json").read_text("utf-8"))


def test_every_method_is_measured_at_every_size(curve: Path, summary: dict) -> None:
    assert [row["size"] for row in summary["sizes"]] == [20, 60, summary["labels"]]  # there are no 1,000
    assert summary["labels"] == 240 - summary["examples"] - summary["validation"]
    for row in summary["sizes"]:
        assert [method["name"] for method in row["methods"]] == ["tfidf", "nbsvm", "encoder", "combined"]
        assert sum(row["classes"].values()) == row["size"]
        assert set(row["classes"]) == {"bad", "good", "mixed"}
        assert min(row["classes"].values()) >= 1
        stored = json.loads((curve / "sizes" / f"{row['size']}.json").read_text("utf-8"))
        best = {m["name"]: sum(map(int, m["correct"])) for m in stored["methods"]}
        for method in row["methods"]:
            assert method["value"] == pytest.approx(best[method["name"]] / summary["examples"])
            assert method["low"] <= method["value"] <= method["high"]
            assert best[method["difference"]["to"]] == max(n for name, n in best.items() if name != method["name"])
            assert "correct" not in method
    assert not (curve / "training").exists()
    assert summary["sizes"][-1]["methods"][-1]["gain"]["from"] == 60


def test_few_labels_get_more_epochs(summary: dict) -> None:
    assert [(row["epochs"], row["updates"]) for row in summary["sizes"][:2]] == [(6, 12), (3, 12)]
    assert summary["sizes"][-1]["updates"] >= 12
    training = tiny_config(Path("x"), Path("y"), Path("z"), training__epochs=3).training
    assert [epochs_for(training, size, 100) for size in (16, 17, 160, 1_600)] == [100, 50, 10, 3]


def test_the_page_says_what_to_take(curve: Path, summary: dict) -> None:
    page = Page(curve / "curve.html")
    assert "script" not in page.tags
    for text in (
        *summary["advice"],
        *summary["notes"],
        "TF-IDF + logistic regression",
        f"bad {summary['sizes'][0]['classes']['bad']}",
    ):
        assert text in page.text, text
    assert "<svg" in page.source
    assert any("held out, the same for all sizes" in note for note in summary["notes"])


def test_subsets_are_nested_and_nothing_else_is_fitted_on(
    three: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, set[str]]] = []
    read, fit_baselines, fit_expert = runs.Run.read, module.fit_baselines, runs.fit_expert

    def reading(run, parts=None):
        assert len(parts.spare) == 0
        assert len(parts.clusters) == len(parts.train)
        texts = {name: {e.texts[0] for e in getattr(parts, name).items} for name in ("train", "validation")}
        seen.append(texts | {"measured": {e.texts[0] for e in parts.read_test().items}})
        return read(run, parts)

    def fitting(task, examples, nbsvm=None):
        assert {e.texts[0] for e in examples.items} == seen[-1]["train"]
        assert nbsvm.fitted_on == len(examples)
        return fit_baselines(task, examples, nbsvm)

    def expert(task, parts, teaches=False):
        assert {e.texts[0] for e in parts.train.items} == seen[-1]["train"]
        return fit_expert(task, parts, teaches)

    monkeypatch.setattr(runs.Run, "read", reading)
    monkeypatch.setattr(runs, "fit_expert", expert)
    monkeypatch.setattr(module, "fit_baselines", fitting)
    config = config_for(three, encoder, data__train_size=100, training__expert_targets=0.5)
    learning_curve(config, tmp_path / "c", (10, 31, "all"), updates=1)
    assert [len(texts["train"]) for texts in seen] == [10, 31, 100]  # train_size bounds them
    assert seen[0]["train"] < seen[1]["train"] < seen[2]["train"]
    for texts in seen:
        assert texts["validation"] == seen[0]["validation"]
        assert texts["measured"] == seen[0]["measured"]
        assert not texts["train"] & (texts["validation"] | texts["measured"])


def test_a_restart_measures_only_what_is_missing(
    reviews: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = config_for(reviews, encoder), tmp_path / "c"
    first = learning_curve(config, folder, (20,), updates=2)
    assert [method["name"] for method in first["sizes"][0]["methods"]] == ["tfidf", "nbsvm", "encoder"]
    assert len(first["advice"]) == 1
    measured = []
    measure = module._measure
    monkeypatch.setattr(module, "_measure", lambda curve, size: measured.append(size) or measure(curve, size))
    again = learning_curve(config, folder, (20,), updates=2)
    assert measured == []
    assert again == first
    more = learning_curve(config, folder, (10,), updates=2)  # a size of later takes its place
    assert measured == [10]
    assert [row["size"] for row in more["sizes"]] == [10, 20]
    assert more["sizes"][1]["classes"] == first["sizes"][0]["classes"]


def test_a_stopped_training_goes_on(
    reviews: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    from distilora.training import loop

    config = config_for(reviews, encoder, training__checkpoint_every=1)
    whole = learning_curve(config, tmp_path / "whole", (40,), updates=9)
    make_update, done = loop.make_update, []

    def stopping(*given):
        done.append(1)
        if len(done) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return make_update(*given)

    monkeypatch.setattr(loop, "make_update", stopping)
    with pytest.raises(Interrupted, match=r"stopped after update 4 of 9; continue with the same command"):
        learning_curve(config, tmp_path / "c", (40,), updates=9)
    assert not list((tmp_path / "c" / "sizes").iterdir())
    resumed = learning_curve(config, tmp_path / "c", (40,), updates=9)
    assert len(done) == 9  # no update is made twice

    def figures(summary: dict) -> list:
        return [{k: v for k, v in m.items() if k != "seconds"} for m in summary["sizes"][0]["methods"]]

    assert figures(resumed) == figures(whole)


def test_a_full_disk_leads_back_to_the_curve() -> None:
    def full() -> None:
        raise OutputError("the disk is full; go on from the last whole checkpoint with: distilora train --resume 'a b'")

    with pytest.raises(OutputError, match=r"full; go on from the last whole checkpoint with the same command$"):
        module._fit(SimpleNamespace(fit=full))


def test_other_settings_and_data_are_refused(reviews: Path, encoder: Path, tmp_path: Path) -> None:
    data = tmp_path / "reviews.csv"
    data.write_bytes(reviews.read_bytes())
    config, folder = config_for(data, encoder), tmp_path / "c"
    learning_curve(config, folder, (20,), updates=1)
    for changed, updates, named in (
        (config_for(data, encoder, training__seed=1), 1, r"training\.seed 0, here 1"),
        (config, 2, r"updates 1, here 2"),
    ):
        with pytest.raises(
            ConfigError, match=rf"output: .*c holds a curve of other settings \({named}\); give another"
        ):
            learning_curve(changed, folder, (20,), updates=updates)
    write_csv(data, tiny_reviews(300, 1))
    with pytest.raises(ConfigError, match="another training data; another validation data; another held-out data"):
        learning_curve(config, folder, (20,), updates=1)
    learning_curve(config_for(reviews, encoder), tmp_path / "d", (20,), updates=1)


def test_without_heldout_examples_it_says_so(reviews: Path, encoder: Path, tmp_path: Path) -> None:
    config = config_for(reviews, encoder, data__test_split="none")
    summary = learning_curve(config, tmp_path / "c", (20,), updates=1)
    assert (summary["split"], summary["examples"]) == ("validation", 40)
    assert summary["notes"][0].startswith("No examples are held out")


def test_a_test_split_is_never_read(reviews: Path, encoder: Path, tmp_path: Path) -> None:
    test = write_csv(tmp_path / "test.csv", tiny_reviews(30, 5))
    config = config_for(reviews, encoder, data__test_path=str(test))
    test.write_text("text,label\nfilm,unheard of\n", "utf-8")  # an error, if it were read
    summary = learning_curve(config, tmp_path / "c", (20,), updates=1)
    assert (summary["split"], summary["examples"]) == ("heldout", 30)
    assert to_tree(config)["data"]["test_path"] is not None


def test_the_command(reviews: Path, encoder: Path, tmp_path: Path, capsys: Captured) -> None:
    words = ["curve", "--data.path", str(reviews), "--encoder.name", str(encoder), "--data.max_length", "64",
             "--data.validation_size", "40", "--training.precision", "fp32", "--evaluation.bootstrap", "100", "--quiet",
             "--sizes", "8,40", "--updates=3", "--output", str(tmp_path / "c")]  # fmt: skip
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("With 8")
    assert "take " in out
    assert "reviews.csv: heldout, 30 examples" in out
    assert out.endswith(f"The page: {tmp_path / 'c'}/curve.html\n")
    rows = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert rows == ["labels", *["8"] * 3, *["40"] * 3]
    settings = json.loads((tmp_path / "c" / "settings.json").read_text("utf-8"))
    assert settings["settings"]["updates"] == 3


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--output", "OUT", "--sizes", "100,many"], "--sizes: many given, whole numbers such as 100,300,1000, or all"),
        (["--output", "OUT", "--sizes"], "--sizes: nothing given, whole numbers"),
        (["--output", "OUT", "--sizes", "0"], "--sizes: 0 given"),
        (["--output", "OUT", "--sizes", "2"], "--sizes: 2 given, but there are 3 classes to train on; give 3 or more"),
        (["--output", "OUT", "--updates", "0"], "--updates: 0 given, a whole number of 1 or more wanted"),
        (["--sizes", "100"], "--output: nothing given; name the folder of the curve"),
        (["--output", "OUT", "--overwrite"], "--overwrite: goes with distilora train"),
        (["--output", "OUT", "--size", "10"], "--size: there is no such setting; did you mean --sizes?"),
        (["--output", "OUT", "--data.unlabelled", "x.csv"], "data.unlabelled: given, but a learning curve trains on labels"),
        (["--output", "FULL"], "output: FULL is not empty and holds no learning curve; give another --output"),
        (["--output", "OUT", "--data.path", "nowhere.csv"], "data.path: "),
    ],
)  # fmt: skip
def test_what_is_refused(
    words: list[str], named: str, three: Path, encoder: Path, tmp_path: Path, capsys: Captured
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").write_text("dear", "utf-8")
    places = {"OUT": str(tmp_path / "out"), "FULL": str(full)}
    start = ["curve", "--quiet", "--data.path", str(three), "--encoder.name", str(encoder), "--data.max_length", "64"]
    said = failed([*start, *(places.get(word, word) for word in words)], capsys)
    assert said.startswith(named.replace("FULL", str(full)))
    assert not (tmp_path / "out").exists()


def test_a_task_without_classes_is_refused(
    reviews: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distilora.tasks.classification import Classification

    monkeypatch.setattr(Classification, "ngram_classes", None)
    with pytest.raises(ConfigError, match="task: classification has no classes"):
        learning_curve(config_for(reviews, encoder), tmp_path / "c", (20,))
    assert not np.any(list(tmp_path.iterdir()))
