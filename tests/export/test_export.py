"""Exports: a gate that can be failed, the fastest form that passes, nothing half-written."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fresh import verify_here
from support.tiny import tiny_reviews, write_csv

from distilora.artifact.format import read_artifact
from distilora.cli.main import main
from distilora.errors import ConfigError, DataError, MissingExtra, ParityError
from distilora.export import export, parity
from distilora.export.export import export_run

Captured = pytest.CaptureFixture[str]


def test_an_unknown_form(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^to: 'tflite' given, merged, onnx, onnx-int8, openvino, transformersjs wanted"
    ):
        export_run(finished, "tflite", tmp_path / "out")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_files_get_the_usual_mode_without_a_change_of_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "held.safetensors").touch(0o600)
    (tmp_path / "usual").touch(0o666)

    def changed(mask: int) -> int:
        raise AssertionError("it holds for the whole process")

    monkeypatch.setattr(os, "umask", changed)
    export._move_all(source, target)
    assert [path.name for path in target.iterdir()] == ["held.safetensors"]
    assert (target / "held.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode


class TestTheGate:
    @pytest.fixture(autouse=True)
    def quick(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export, "verify", verify_here)
            yield

    def test_a_model_that_answers_otherwise_is_refused(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
    ) -> None:
        opened = export.load_merged

        def spoilt(*args: object, **settings: object) -> object:
            network = opened(*args, **settings)
            network.model.classifier.bias.data += network.model.classifier.bias.data.new_tensor([3.0, -3.0])
            return network

        monkeypatch.setattr(export, "load_merged", spoilt)
        monkeypatch.setattr(export, "verify", lambda *rest: {})  # what is written is not spoilt
        words = ["export", str(finished), "--to", "merged", "--output", str(tmp_path / "out")]
        assert main(words) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("distilora: --to: torch fp32 gives ")
        assert last.endswith("nothing was written; --accept-loss writes it all the same")
        assert list(tmp_path.iterdir()) == []
        export_run(finished, "merged", tmp_path / "out", accept_loss=True)
        assert read_artifact(tmp_path / "out").parity["accepted_loss"] is True

    def test_the_fastest_that_passes_is_the_default(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parity, "LEAST_AGREEMENT", 2.0)  # nothing can
        with pytest.raises(ParityError, match="needed"):
            export_run(finished, "merged", tmp_path / "out")
        monkeypatch.undo()
        figures = export_run(finished, "merged", tmp_path / "out").parity
        passing = {n: c["texts_per_s"] for n, c in figures["candidates"].items() if c["passed"]}
        assert figures["default"] == max(passing, key=lambda name: passing[name])

    def test_held_out_texts(self, finished: Path, tmp_path: Path, capsys: Captured) -> None:
        moved = shutil.copytree(finished / "model", tmp_path / "model")
        with pytest.raises(DataError, match=r"^--held-out: .* is not in its run's folder, .* give labelled texts"):
            export_run(moved, "merged", tmp_path / "out")
        labelled = write_csv(tmp_path / "given.csv", tiny_reviews(50, 3))
        figures = export_run(moved, "merged", tmp_path / "out", held_out=str(labelled)).parity
        assert (figures["texts"], figures["held_out"]) == (50, f"{labelled}, train")
        assert "note: 50 held-out texts instead of 1,000" in capsys.readouterr().err
        with pytest.raises(DataError, match="no-such"):
            export_run(moved, "merged", tmp_path / "again", held_out=str(tmp_path / "no-such.csv"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["given.csv", "model", "out"]

    def test_missing_packages_are_named(self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from importlib import util

        figures = util.find_spec
        monkeypatch.setattr(
            util, "find_spec", lambda name, *rest: None if name == "onnxscript" else figures(name, *rest)
        )
        with pytest.raises(MissingExtra, match=r"onnxscript is not installed; .*distilora\[export\]"):
            export_run(finished, "onnx", tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
