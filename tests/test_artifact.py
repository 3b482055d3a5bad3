"""The artifact: whole or refused, written at once or not at all."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from distilora.artifact import (
    CHECK_TEXTS,
    Artifact,
    Check,
    check_examples,
    model_folder,
    read_artifact,
    read_check,
    write_artifact,
)
from distilora.errors import ArtifactError
from distilora.examples import Example
from distilora.files import sha256

FILES = {"tokenizer.json", "check.npz", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
EMPTY = Check([Example(("a", "b")), Example(("ü",))], np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32))


@pytest.fixture
def model(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run's model, to spoil."""
    return shutil.copytree(finished / "model", tmp_path / "model")


def test_a_finished_run_is_read(finished: Path, encoder: Path) -> None:
    artifact = read_artifact(finished)
    assert artifact == read_artifact(finished / "model") == read_artifact(str(finished))
    assert artifact.folder == finished / "model"
    assert set(artifact.files) == FILES
    assert artifact.files == {name: sha256(finished / "model" / name) for name in FILES}
    assert artifact.encoder["sha256"] == sha256(encoder / "model.safetensors")
    assert artifact.task == {
        "name": "classification",
        "settings": {"labels": ["neg", "pos"], "text_column": "text", "label_column": "label"},
    }
    assert (artifact.max_length, artifact.precision, artifact.weights) == (64, "fp32", "peft")
    assert artifact.temperature != 1.0


def test_the_check_holds_the_shortest_and_the_longest(finished: Path) -> None:
    check = read_check(read_artifact(finished))
    assert len(check.examples) == CHECK_TEXTS
    assert check.outputs.shape == check.outputs_fp32.shape == (CHECK_TEXTS, 2)
    examples = [Example(("x" * n,)) for n in (5, 1, 9, 3)]
    assert [len(e.texts[0]) for e in check_examples(examples)] == [1, 3, 5, 9]
    many = check_examples([Example(("x" * n,), target=1) for n in range(1, 500)])
    assert (len(many), many[0].texts, many[-1].texts) == (CHECK_TEXTS, ("x",), ("x" * 499,))
    assert many[0].target is None


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name}: missing; copy the whole model folder"):
        read_artifact(model)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_file_is_named(model: Path, name: str) -> None:
    content = bytearray((model / name).read_bytes())
    content[len(content) // 2] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name}: changed since it was written"):
        read_artifact(model)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '"schema"'])
def test_a_damaged_artifact_json(model: Path, content: str) -> None:
    (model / "artifact.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"artifact\.json: damaged"):
        read_artifact(model)


def test_another_schema(model: Path) -> None:
    fields = json.loads((model / "artifact.json").read_text())
    (model / "artifact.json").write_text(json.dumps({"schema": 4, "all": "new"}))
    with pytest.raises(ArtifactError, match="schema 4, but this release reads 2, 3"):
        read_artifact(model)
    (model / "artifact.json").write_text(json.dumps(fields | {"surprise": 1}))
    with pytest.raises(ArtifactError, match=r"fields \['surprise'\] are missing or unknown"):
        read_artifact(model)
    del fields["temperature"]
    (model / "artifact.json").write_text(json.dumps(fields))
    with pytest.raises(ArtifactError, match=r"fields \['temperature'\] are missing"):
        read_artifact(model)


def test_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such run"):
        model_folder(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"no artifact\.json here"):
        model_folder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ArtifactError, match=f"not finished; continue it with: distilora train --resume {tmp_path}"):
        model_folder(tmp_path)


def test_written_and_read_back(finished: Path, tmp_path: Path) -> None:
    artifact = read_artifact(finished)

    def write_files(target: Path) -> None:
        (target / "adapter").mkdir()
        (target / "adapter" / "weights").write_bytes(b"1")

    written = write_artifact(tmp_path / "model", artifact, write_files, EMPTY)
    assert read_artifact(tmp_path) == written
    assert set(written.files) == {"adapter/weights", "check.npz"}
    check = read_check(written)
    assert check.examples == EMPTY.examples
    assert np.array_equal(check.outputs_fp32, EMPTY.outputs_fp32)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_write_leaves_what_was_there(finished: Path, tmp_path: Path) -> None:
    artifact = dataclasses.replace(read_artifact(finished), distilora="first")
    write_artifact(tmp_path / "model", artifact, lambda target: None, EMPTY)

    def fail(target: Path) -> None:
        (target / "half").write_text("written")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        write_artifact(tmp_path / "model", dataclasses.replace(artifact, distilora="second"), fail, EMPTY)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert read_artifact(tmp_path).distilora == "first"
    with pytest.raises(OSError, match="no space left"):
        write_artifact(tmp_path / "other", artifact, fail, EMPTY)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_later_one_takes_its_place(finished: Path, tmp_path: Path) -> None:
    first: Artifact = read_artifact(finished)
    write_artifact(tmp_path / "model", first, lambda target: (target / "old").touch(), EMPTY)
    write_artifact(tmp_path / "model", first, lambda target: (target / "new").touch(), EMPTY)
    assert set(read_artifact(tmp_path).files) == {"check.npz", "new"}
