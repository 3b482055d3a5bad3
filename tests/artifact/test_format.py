"""The artifact: whole or refused, written at once or not at all."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilora.artifact.check import CHECK_TEXTS, Check, check_examples, read_check
from distilora.artifact.format import Artifact, model_folder, read_artifact, sealed, write_artifact
from distilora.data.examples import Example
from distilora.errors import ArtifactError
from distilora.files.atomic import sha256

FILES = {
    "tokenizer.json", "check.npz", "scores.npz", "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
}  # fmt: skip
ADAPTER = "adapter/adapter_model.safetensors"
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
    check = read_check(read_artifact(finished).folder)
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


def change(model: Path, *without: str, **fields: Any) -> dict[str, Any]:
    """Changes fields of artifact.json, checksum and all; returns all but the checksum."""
    path = model / "artifact.json"
    changed = {**json.loads(path.read_text("utf-8")), **fields}
    remaining = {name: value for name, value in changed.items() if name not in {"checksum", *without}}
    path.write_text(json.dumps(sealed(remaining)), "utf-8")
    return remaining


def test_another_schema(model: Path) -> None:
    (model / "artifact.json").write_text(json.dumps({"schema": 99, "all": "new"}))
    with pytest.raises(ArtifactError, match="schema 99, but this release reads 2, 3, 4, 5"):
        read_artifact(model)


def test_other_fields(model: Path) -> None:
    change(model, surprise=1)
    with pytest.raises(ArtifactError, match=r"fields \['surprise'\] are missing or unknown"):
        read_artifact(model)
    change(model, "surprise", "temperature")
    with pytest.raises(ArtifactError, match=r"fields \['temperature'\] are missing"):
        read_artifact(model)


def test_a_changed_byte_of_artifact_json(model: Path) -> None:
    path = model / "artifact.json"
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ArtifactError):
            read_artifact(model)
    path.write_bytes(content.replace(b'"max_length": 64', b'"max_length": 65'))
    with pytest.raises(ArtifactError, match=r"artifact\.json: changed since it was written"):
        read_artifact(model)


@pytest.mark.parametrize(("schema", "lacking"), [(4, ()), (3, ()), (2, ("parity",))])
def test_older_schemas_still_load(schema: int, lacking: tuple[str, ...], model: Path) -> None:
    newest = read_artifact(model)
    fields = change(model, "truncation_side", *lacking, schema=schema)
    if schema < 4:
        (model / "artifact.json").write_text(json.dumps(fields), "utf-8")  # without a checksum
    older = read_artifact(model)
    assert older.truncation_side is None
    assert dataclasses.replace(older, schema=newest.schema, truncation_side="right") == newest


def test_an_unknown_truncation_side(model: Path) -> None:
    change(model, truncation_side="top")
    with pytest.raises(ArtifactError, match=r"artifact\.json: damaged \(truncation_side\)"):
        read_artifact(model)


OUTSIDE = ["../secret", "adapter/../../secret", "", "adapter//weights", "./check.npz", "adapter/.", "..\\secret",
           "C:secret", "C:/secret", "//host/secret", "check.npz\0", "\ud800", "x" * 300]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_of_the_folder(name: str, model: Path) -> None:
    (model.parent / "secret").write_bytes(b"secret")
    files = {**read_artifact(model).files, name: sha256(model.parent / "secret")}
    change(model, files=files)
    with pytest.raises(ArtifactError) as error:
        read_artifact(model)
    assert f"files: {name!r} does not lie in the model's folder" in str(error.value)
    assert "\n" not in str(error.value)


def test_absolute_names_and_links_that_lead_out(model: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    files = read_artifact(model).files
    change(model, files={**files, str(secret): sha256(secret)})
    with pytest.raises(ArtifactError, match=r"secret' does not lie in the model's folder"):
        read_artifact(model)
    for target in (secret, model / "link"):
        (model / "link").unlink(missing_ok=True)
        (model / "link").symlink_to(target)
        change(model, files={**files, "link": sha256(secret)})
        with pytest.raises(ArtifactError, match="'link' does not lie in the model's folder"):
            read_artifact(model)


def test_a_snapshot_of_the_hub_links_to_its_blobs(model: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0f", tmp_path / "models--a--b" / "blobs"
    snapshot.parent.mkdir(parents=True)
    blobs.mkdir()
    model.rename(snapshot)
    (snapshot / "check.npz").rename(blobs / "c0")
    (snapshot / "check.npz").symlink_to("../../blobs/c0")
    assert set(read_artifact(snapshot).files) == FILES


def test_weights_are_safetensors_or_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    for method, weights in (("lora", ADAPTER), ("full", "delta/delta.safetensors")):
        model = shutil.copytree(runs[method] / "model", tmp_path / method)
        pickled = weights.replace(".safetensors", ".bin")
        (model / weights).rename(model / pickled)
        files = {**read_artifact(runs[method]).files, pickled: sha256(model / pickled)}
        del files[weights]
        change(model, files=files)
        with pytest.raises(ArtifactError, match=f"has no {weights}, and weights are read from nothing else"):
            read_artifact(model)


def test_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such run"):
        model_folder(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"no artifact\.json here"):
        model_folder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ArtifactError, match=f"not finished; continue it with: distilora train --resume {tmp_path}"):
        model_folder(tmp_path)


def write_weights(target: Path) -> None:
    (target / "adapter").mkdir()
    (target / ADAPTER).write_bytes(b"1")


def test_written_and_read_back(finished: Path, tmp_path: Path) -> None:
    artifact = read_artifact(finished)

    written = write_artifact(tmp_path / "model", dataclasses.replace(artifact, schema=2), write_weights, EMPTY)
    assert read_artifact(tmp_path) == written
    assert written.schema == Artifact.schema
    assert set(written.files) == {ADAPTER, "check.npz"}
    check = read_check(written.folder)
    assert check.examples == EMPTY.examples
    assert np.array_equal(check.outputs_fp32, EMPTY.outputs_fp32)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_write_leaves_what_was_there(finished: Path, tmp_path: Path) -> None:
    artifact = dataclasses.replace(read_artifact(finished), distilora="first")
    write_artifact(tmp_path / "model", artifact, write_weights, EMPTY)

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

    def write_more(target: Path) -> None:
        write_weights(target)
        (target / "old").touch()

    write_artifact(tmp_path / "model", first, write_more, EMPTY)
    write_artifact(tmp_path / "model", first, write_weights, EMPTY)
    assert set(read_artifact(tmp_path).files) == {"check.npz", ADAPTER}
