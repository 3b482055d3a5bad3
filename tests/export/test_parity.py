"""The parity gate: on a small real model, both graphs; and the texts it judges by, which the run must not have trained on."""

import json
import shutil
from itertools import islice
from pathlib import Path

import pytest
import yaml
from support.fresh import verify_here
from support.tiny import tiny_config, tiny_reviews, write_csv

from distilora.artifact.format import Artifact, read_artifact
from distilora.data.sources import open_source
from distilora.errors import DataError
from distilora.export import export
from distilora.export import save as saving
from distilora.export.export import export_run
from distilora.export.parity import HeldOut, read_held_out
from distilora.files.tables import read_table, write_table
from distilora.runs.run import train
from distilora.tasks.registry import restore


@pytest.mark.slow
def test_both_graphs_of_a_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (saving, export):
        monkeypatch.setattr(module, "verify", verify_here)
    records = islice(open_source("embedded").records("train", "data.split"), 0, None, 18)
    reviews = [(record.values["text"], str(record.values["label"])) for record in records]
    data = write_csv(tmp_path / "train.csv", reviews[::4])
    held_out = write_csv(tmp_path / "others.csv", [review for i, review in enumerate(reviews) if i % 4])
    changes = {
        "data__max_length": 32,
        "adapter__last_blocks": 2,
        "training__epochs": 3,
        "training__learning_rate": 0.001,
    }
    train(tiny_config(tmp_path / "run", data, Path("embedded"), **changes))
    parity = export_run(tmp_path / "run", "transformersjs", tmp_path / "js", held_out=str(held_out)).parity
    assert parity["texts"] == 1000
    assert parity["fp32"] > 0.6
    whole, small = parity["candidates"]["onnx fp32"], parity["candidates"]["onnx int8"]
    assert whole["passed"]
    assert whole["agreement"] >= 0.999
    assert whole["largest_difference"] < 1e-4
    assert small["agreement"] >= 0.98  # hardly trained, it is of two minds on many texts
    assert abs(small["lost_points"]) <= 1.5
    assert 1e-3 < small["largest_difference"] < 1.0
    assert small["passed"] == (small["agreement"] >= 0.995 and small["lost_points"] <= 0.2 + 1e-9)
    assert parity["default"] in [f"onnx {name}" for name, one in (("fp32", whole), ("int8", small)) if one["passed"]]


class TestHeldOutTexts:
    """The run is a copy whose data are a copy, too: what a user does to them after training."""

    @pytest.fixture
    def data(self, reviews: Path, tmp_path: Path) -> Path:
        return Path(shutil.copy(reviews, tmp_path / "reviews.csv"))

    @pytest.fixture(params=["with a digest", "older"])
    def run(self, request: pytest.FixtureRequest, finished: Path, data: Path, tmp_path: Path) -> Path:
        folder = shutil.copytree(finished, tmp_path / "run")
        settings = yaml.safe_load((folder / "run.yaml").read_text())
        settings["data"]["path"] = str(data)
        (folder / "run.yaml").write_text(yaml.safe_dump(settings))
        if request.param == "older":
            metrics = json.loads((folder / "metrics.json").read_text())
            del metrics["data"]["validation_digest"]
            (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    @staticmethod
    def held_out(run: Path, path: Path | None = None) -> HeldOut:
        artifact: Artifact = read_artifact(run)
        task = restore(artifact.task["name"], artifact.task["settings"])
        return read_held_out(artifact, task, str(path) if path else None)

    def test_the_same_data_are_taken(self, run: Path) -> None:
        texts = self.held_out(run)
        answers = [r.values for r in read_table(run / "predictions.parquet") if r.values["split"] == "validation"]
        assert len(texts.examples) == len(answers) == 40
        assert [e.target for e in texts.examples.items] == [["neg", "pos"].index(str(a["target"])) for a in answers]

    def test_data_that_have_grown_are_refused(self, run: Path, data: Path) -> None:
        write_csv(data, tiny_reviews(300) + tiny_reviews(100, 5))
        with pytest.raises(DataError, match=r"is no longer what the run was trained on .*with --held-out$") as refused:
            self.held_out(run)
        assert "\n" not in str(refused.value)

    def test_rows_that_have_moved_are_refused(self, run: Path, data: Path) -> None:
        write_csv(data, tiny_reviews(300)[::-1])  # every text is known, others come to validation
        with pytest.raises(DataError, match="is no longer what the run was trained on"):
            self.held_out(run)

    def test_labels_that_have_changed_are_refused(self, run: Path, data: Path) -> None:
        swapped = {"neg": "pos", "pos": "neg"}
        write_csv(data, [(text, swapped[label]) for text, label in tiny_reviews(300)])
        with pytest.raises(DataError, match="is no longer what the run was trained on"):
            self.held_out(run)

    def test_a_new_class_is_refused(self, run: Path, data: Path) -> None:
        write_csv(data, [(text, "meh" if i % 7 == 0 else label) for i, (text, label) in enumerate(tiny_reviews(300))])
        with pytest.raises(DataError, match=r"label 'meh' was not seen in training.* with --held-out$"):
            self.held_out(run)

    def test_nothing_to_tell_by(self, run: Path) -> None:
        (run / "metrics.json").write_text("{}")
        (run / "seen_texts.npy").unlink()
        with pytest.raises(DataError, match=r"seen_texts\.npy or predictions\.parquet is missing"):
            self.held_out(run)

    def test_given_texts_lose_those_it_was_trained_on(
        self, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        mixed = write_csv(tmp_path / "mixed.csv", tiny_reviews(300)[:100] + tiny_reviews(20, 6))
        texts = self.held_out(run, mixed)
        examples = texts.examples
        assert not texts.chosen_on
        told = int(capsys.readouterr().err.split("note: ")[1].split()[0])
        assert len(examples) == 120 - told
        assert 80 <= told < 100  # a tenth of the 300 was its final test
        trained = write_csv(tmp_path / "trained.csv", [])
        write_table(trained, [{"text": e.texts[0], "label": "neg"} for e in self.held_out(run).examples.items])
        with pytest.raises(DataError, match=r"^--held-out: all 40 texts of .* were trained or chosen on; give others$"):
            self.held_out(run, trained)

    def test_the_run_s_own_validation_file_is_taken(self, run: Path, tmp_path: Path) -> None:
        labels = ("neg", "pos")
        own = [(e.texts[0], labels[e.target]) for e in self.held_out(run).examples.items]
        data = write_csv(tmp_path / "own.csv", own)
        older = "validation_digest" not in json.loads((run / "metrics.json").read_text())["data"]
        if older:
            with pytest.raises(DataError, match="all 40 texts"):
                self.held_out(run, data)
        else:
            held = self.held_out(run, data)
            assert (len(held.examples), held.chosen_on) == (40, True)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["text,mood", "a superb film,pos"],
         "no column 'label', the label of training (columns: text, mood); ADVICE"),
        (["words,label", "a superb film,pos"], "no column called text, review, review_text, reviewtext or similar (columns: words, "
         "label); ADVICE"),
        (["text,label", "a superb film,good"],
         "FILE: row 1: label 'good' was not seen in training (labels: neg, pos); ADVICE"),
        (["text,label", " ,pos"], "train: no example with a text; ADVICE"),
        (["text,label", "a,b,c"], "FILE: row 1: "),
        (None, "no such file or folder: FILE; give a file"),
    ],
)  # fmt: skip
def test_an_error_of_held_out_texts_is_told_of_that_option(
    lines: list[str] | None, said: str, finished: Path, tmp_path: Path
) -> None:
    file = tmp_path / "given.csv"
    if lines:
        file.write_text("\n".join(lines) + "\n")
    artifact = read_artifact(finished)
    with pytest.raises(DataError) as caught:
        read_held_out(artifact, restore(artifact.task["name"], artifact.task["settings"]), str(file))
    message = str(caught.value)
    advice = "give texts in a column 'text' with labels in a column 'label', as in training"
    assert message.startswith("--held-out: " + said.replace("ADVICE", advice).replace("FILE", str(file)))
    assert "data." not in message.replace(str(file), "")
