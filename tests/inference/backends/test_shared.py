"""Runs of several tasks on one shared encoder answer as each does by itself; what does not fit is refused."""

import csv
import dataclasses
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fresh import verify_here
from support.tiny import tiny_config, write_tiny_encoder

from distilora.artifact.format import Artifact, read_artifact
from distilora.artifact.tokenizer import open_tokenizer
from distilora.batching.rows import joined
from distilora.data.examples import Example
from distilora.errors import ArtifactError, EncoderError
from distilora.export import save as saving
from distilora.hardware import flags
from distilora.inference.adapter_check import check_adapter
from distilora.inference.backends import open_backend
from distilora.inference.backends.shared import SharedEncoder, open_shared
from distilora.inference.lanes import run_rows
from distilora.inference.predictor import Predictor, load
from distilora.tasks.registry import restore


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    """A finished run of question answering, whose contexts take several windows."""
    from distilora.runs.run import train

    base = tmp_path_factory.mktemp("question")
    with open(base / "questions.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("question", "context", "answer"))
        for i in range(24):
            filler = "the music was warm and the scene long " * (i % 5)
            writer.writerow((f"what is the plot {i}", f"{filler}the plot is number {i} and dull", f"number {i}"))
    config = tiny_config(
        base / "run", base / "questions.csv", encoder, data__max_length=32, data__validation_size=8, adapter__r=4,
        adapter__targets="attention", adapter__last_blocks=1, training__epochs=2,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "verify", verify_here)
        train(dataclasses.replace(config, task="question_answering"))
    return base / "run"


@pytest.fixture(scope="module")
def artifacts(finished: Path, question: Path) -> list[Artifact]:
    return [read_artifact(finished), read_artifact(question)]


def opened(artifact: Artifact, *settings: Any) -> SharedEncoder:
    shared = open_shared(artifact, *(settings or ("fp32", "cpu")))
    assert shared is not None
    return shared


ASKED: list[list[Any]] = [
    ["a superb film 1.", "dull and lifeless 2.", "the plot was really very warm 3."],
    [{"question": "what is the plot 3", "context": "the music was warm " * 9 + "the plot is number 3 and dull"},
     {"question": "what is number 4", "context": "the plot is number 4"}],
]  # fmt: skip


def rows_of_all(artifact: Artifact, asked: list[Any]) -> Any:
    task = restore(artifact.task["name"], artifact.task["settings"])
    examples = [Example((t,) if isinstance(t, str) else (t["question"], t["context"])) for t in asked]
    return task.tokenise(open_tokenizer(artifact), examples).rows


def test_runs_of_two_tasks_answer_in_one_batch(artifacts: list[Artifact]) -> None:
    shared = opened(artifacts[0])
    assert (shared.precision, shared.lanes) == ("fp32", open_backend(artifacts[0], "fp32", "cpu").lanes)
    numbers = [shared.add(artifact) for artifact in artifacts]
    rows = [rows_of_all(artifact, asked) for artifact, asked in zip(artifacts, ASKED, strict=True)]
    assert len(rows[1]) > rows[1].groups  # windows
    own = [run_rows(r, open_backend(a, "fp32", "cpu")) for a, r in zip(artifacts, rows, strict=True)]
    mixed = joined([rows[0].take([0]), rows[1], rows[0].take([1, 2])])
    outputs = shared.run(mixed, [numbers[n] for n in (0, 1, 1, 0, 0)])
    assert mixed.groups == len(outputs) == 5
    for ours, expected in zip(outputs, [own[0][0], *own[1], *own[0][1:]], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_an_adapter_alone_is_a_backend(artifacts: list[Artifact]) -> None:
    shared = opened(artifacts[0])
    for artifact, asked in zip(artifacts, ASKED, strict=True):
        alone = shared.alone(shared.add(artifact))
        alone.open()
        assert check_adapter(artifact, alone) < 1e-4
        ours, own = Predictor(artifact, alone)(asked), load(artifact.folder, "fp32", "cpu")(asked)
        for one, other in zip(ours, own, strict=True):
            for name, value in other.items():
                assert one[name] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value)


def test_lanes_compute_on_a_core_each(artifacts: list[Artifact]) -> None:
    import torch

    shared = opened(artifacts[0])
    number, rows = shared.add(artifacts[0]), rows_of_all(artifacts[0], ASKED[0])
    before, results = torch.get_num_threads(), []

    def work(open_lane: Any, *arguments: Any) -> None:
        run = open_lane()
        results.append((torch.get_num_threads(), np.stack(run(rows, *arguments))))

    for lane in ((shared.lane, [number] * 3), (shared.alone(number).lane,)):
        thread = threading.Thread(target=work, args=lane)
        thread.start()
        thread.join()
    assert torch.get_num_threads() == before
    own = np.stack(shared.run(rows, [number] * 3))
    for threads, outputs in results:
        assert threads == 1
        np.testing.assert_allclose(outputs, own, rtol=1e-5, atol=1e-5)
    assert len(results) == 2


def test_a_check_tells_an_adapter_from_another(artifacts: list[Artifact], tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        shared = opened(artifacts[0], precision, "cpu")
        numbers = [shared.add(artifact) for artifact in artifacts]
        for artifact, number in zip(artifacts, numbers, strict=True):
            assert check_adapter(artifact, shared.alone(number)) >= 0
        folder = Path(shutil.copytree(artifacts[0].folder, tmp_path / precision))
        file = folder / "adapter/adapter_model.safetensors"
        from safetensors.torch import load_file, save_file

        save_file({n: -t if "lora_B" in n else t for n, t in load_file(file).items()}, file)
        other = shared.alone(shared.add(dataclasses.replace(artifacts[0], folder=folder)))
        with pytest.raises(ArtifactError, match=rf"in {precision}, outputs differ from check.npz by .* \(allowed"):
            check_adapter(artifacts[0], other)
        with pytest.raises(ArtifactError, match="outputs of shape"):
            check_adapter(artifacts[0], shared.alone(numbers[1]))
    (folder / "check.npz").write_bytes(b"PK torn")
    with pytest.raises(ArtifactError, match=r"check\.npz: damaged"):
        check_adapter(dataclasses.replace(artifacts[0], folder=folder), shared.alone(numbers[0]))


def test_a_removed_adapter_answers_nothing(artifacts: list[Artifact]) -> None:
    shared = opened(artifacts[0])
    numbers = [shared.add(artifact) for artifact in artifacts]
    shared.remove(numbers[0])
    with pytest.raises(ArtifactError, match="it was removed"):
        run_rows(rows_of_all(artifacts[0], ASKED[0]), shared.alone(numbers[0]))
    assert len(shared.run(rows_of_all(artifacts[1], ASKED[1]), [numbers[1]] * 2)) == 2
    assert shared.add(artifacts[0]) not in numbers


def test_what_cannot_share_has_a_reason(artifacts: list[Artifact], encoder: Path, tmp_path: Path) -> None:
    artifact = artifacts[0]
    shared = opened(artifact)
    assert shared.takes(artifact)
    assert shared.obstacle(artifact) is None
    strangers = {
        "its weights are delta": {"weights": "delta"},
        "its weights are onnx": {"weights": "onnx"},
        "a 4-bit base": {"quantisation": {"kind": "nf4"}},
        "its attention is eager": {"attention": "eager"},
        "another head": {"task": {"name": "abstractive_summarization", "settings": {}}},
    }
    for reason, change in strangers.items():
        stranger = dataclasses.replace(artifact, **change)
        assert not shared.takes(stranger)
        assert open_shared(stranger, "fp32", "cpu") is None
        with pytest.raises(ArtifactError, match=f"cannot share this encoder: .*{reason}"):
            shared.add(stranger)
    elsewhere = dataclasses.replace(artifact, encoder={**artifact.encoder, "sha256": "0" * 64})
    assert not shared.takes(elsewhere)
    with pytest.raises(ArtifactError, match="it was trained on another encoder"):
        shared.add(elsewhere)

    automatic = opened(artifact, "auto", "cpu")
    chosen = "fp32" if automatic.precision == "bf16" else "bf16"  # by the parity gate of an export, on such a processor
    gated = dataclasses.replace(artifact, precision=chosen, parity={"flags": flags()})
    assert not automatic.takes(gated)
    assert shared.takes(gated)  # asked for fp32, whatever was measured


def test_the_encoder_may_have_moved_but_not_changed(artifacts: list[Artifact], encoder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(encoder, tmp_path / "moved")
    artifact = dataclasses.replace(artifacts[0], encoder={**artifacts[0].encoder, "name": str(tmp_path / "gone")})
    with pytest.raises(EncoderError, match="no such folder"):
        open_shared(artifact, "fp32", "cpu")
    shared = opened(artifact, "fp32", "cpu", str(moved))
    assert check_adapter(artifact, shared.alone(shared.add(artifact))) < 1e-4
    assert shared.takes(artifacts[1])
    other = write_tiny_encoder(tmp_path / "other", hidden_dim=48)
    with pytest.raises(ArtifactError, match=r"the model was trained on .*; bring that encoder back"):
        open_shared(artifact, "fp32", "cpu", str(other))


def test_a_damaged_adapter_is_refused(artifacts: list[Artifact], tmp_path: Path) -> None:
    shared = opened(artifacts[0])
    folder = Path(shutil.copytree(artifacts[0].folder, tmp_path / "model"))
    (folder / "adapter/adapter_model.safetensors").write_bytes(b"torn")
    damaged = dataclasses.replace(artifacts[0], folder=folder)
    for refused in (shared.takes, shared.add):
        with pytest.raises(ArtifactError, match="weights cannot be loaded"):
            refused(damaged)
