"""Graphs for OpenVINO: the answers of the run, no torch, no telemetry; what they cannot do is refused."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fresh import Fresh, verify_here
from support.tiny import tiny_reviews

from distilora.artifact.format import Artifact, read_artifact
from distilora.artifact.tokenizer import open_tokenizer
from distilora.batching.rows import Rows
from distilora.errors import ArtifactError, ConfigError
from distilora.export import export
from distilora.export.merge import merged_network
from distilora.export.openvino import _group
from distilora.inference.backends import openvino_backend
from distilora.inference.backends.openvino_backend import OpenVinoBackend, runtime
from distilora.inference.backends.torch_backend import TorchBackend
from distilora.inference.lanes import run_rows
from distilora.inference.predictor import load
from distilora.tasks.registry import restore

COMMAND = "from distilora.cli.main import main; sys.exit(main(sys.argv[1:]))"
TEXTS = [*(text for text, _ in tiny_reviews(120, 9)), "superb film " * 60, "film"]
WITHOUT = ["torch", "transformers", "peft", "onnx", "onnxruntime"]


@pytest.fixture(scope="module")
def place(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export, and beside it both graphs, as they were before the gate had chosen."""
    base = tmp_path_factory.mktemp("openvino")
    keep = export._keep_default

    def keep_both(plain: Path, precision: Any, answered: Any) -> Any:
        shutil.copytree(plain, base / "both")
        return keep(plain, precision, answered)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "verify", verify_here)
        patch.setattr(export, "_keep_default", keep_both)
        export.export_run(finished, "openvino", base / "export")
    return base


@pytest.fixture(scope="module")
def exported(place: Path) -> Path:
    return place / "export"


@pytest.fixture(scope="module")
def both(place: Path, finished: Path) -> tuple[Artifact, Rows, np.ndarray]:
    """Both graphs, rows, and what the merged network computes of them in fp32."""
    run, plain = read_artifact(finished), place / "both"
    files = {path.name: "" for path in plain.iterdir()}
    task = restore(run.task["name"], run.task["settings"])
    rows = task.tokenise(open_tokenizer(run), [task.read_text(text) for text in TEXTS]).rows
    graphs = dataclasses.replace(run, folder=plain, files=files, weights="openvino")
    return graphs, rows, run_rows(rows, TorchBackend(merged_network(run, None), "fp32"))


@pytest.mark.parametrize(("precision", "least", "most"), [("fp32", 0, 1e-4), ("bf16", 0, 0.3), ("int8", 1e-4, 0.5)])
def test_every_precision_computes_what_the_run_does(both: tuple, precision: str, least: float, most: float) -> None:
    graphs, rows, expected = both
    backend = OpenVinoBackend(graphs, precision)
    for lanes in (False, True):
        difference = np.abs(run_rows(rows, backend, lanes=lanes) - expected).max()
        assert least <= difference <= most


def test_a_text_is_answered_alike_in_any_batch(both: tuple) -> None:
    graphs, rows, _ = both
    backend = OpenVinoBackend(graphs, "int8")
    together = run_rows(rows, backend)
    alone = np.concatenate([backend.run(rows.take([number])) for number in range(rows.groups)])
    np.testing.assert_allclose(alone, together, rtol=0, atol=0.05)


def test_weights_of_whole_sequences_alone_have_8_bits(both: tuple, encoder: Path) -> None:
    graphs, _, _ = both
    counts = {}
    for name in ("openvino_model.xml", "openvino_model_int8.xml"):
        model = runtime().Core().read_model(str(graphs.folder / name))
        constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
        counts[name] = sum(op.get_element_type().get_type_name() == "i8" for op in constants)
    blocks = json.loads((encoder / "config.json").read_text())["n_layers"]
    assert counts == {"openvino_model.xml": 0, "openvino_model_int8.xml": 4 * (blocks - 1)}


def test_the_gate_chooses_and_the_rest_is_removed(exported: Path, finished: Path) -> None:
    artifact = read_artifact(exported)
    parity = artifact.parity
    assert {"openvino fp32", "openvino int8"} <= set(parity["candidates"])
    assert parity["default"] == f"openvino {artifact.precision}"
    assert artifact.backend == artifact.weights == "openvino"
    stem = "openvino_model_int8" if artifact.precision == "int8" else "openvino_model"
    assert {path.name for path in exported.glob("openvino_model*")} == {f"{stem}.xml", f"{stem}.bin"}
    expected, answers = load(finished, "fp32", "cpu")(TEXTS), load(exported)(TEXTS)
    same = [a["label"] == b["label"] for a, b in zip(answers, expected, strict=True)]
    assert np.mean(same) > 0.98


def test_a_fresh_process_has_neither_torch_nor_telemetry(exported: Path, fresh: Fresh) -> None:
    done = fresh("predict", exported, "superb film", "--json", code=COMMAND, without=WITHOUT)
    assert done.code == 0, done.err
    assert json.loads(done.out)["label"] == "pos"
    done = fresh(
        code="from distilora.inference.backends.openvino_backend import runtime; runtime()\n"
        "print('openvino_telemetry' in sys.modules, 'openvino.tools.ovc.telemetry_stub' in sys.modules)"
    )
    assert done.out.split() == ["False", "True"]
    done = fresh("predict", exported, "superb film", code=COMMAND, without=["openvino"])
    assert done.err == "distilora: openvino is not installed; install it with: pip install 'distilora[openvino]'\n"
    assert done.code == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"backend": "onnx"},
            "backend: onnx asked for, but .* is for openvino; drop it, or export the run with --to onnx",
        ),
        ({"device": "cuda"}, "device: cuda given, but the openvino backend computes on the CPU; drop it"),
        ({"encoder": "somewhere"}, "encoder: given, but an openvino model has its own; drop it"),
    ],
)
def test_what_a_graph_cannot_do(settings: dict[str, str], said: str, exported: Path) -> None:
    with pytest.raises((ConfigError, ArtifactError), match=f"^{said}"):
        load(exported, **settings)


def test_bf16_where_there_is_none_is_said(
    both: tuple, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graphs, rows, expected = both
    monkeypatch.setattr(openvino_backend, "native_bf16", lambda: False)
    backend = OpenVinoBackend(graphs, "bf16")
    np.testing.assert_allclose(run_rows(rows, backend), expected, rtol=0, atol=1e-4)
    assert backend.precision == "fp32"
    assert "does not compute in it; fp32 answers in its place" in capsys.readouterr().err


def test_a_graph_that_cannot_be_loaded(both: tuple, tmp_path: Path) -> None:
    graphs, rows, _ = both
    (tmp_path / "openvino_model.xml").write_text("<net/>", "utf-8")
    backend = OpenVinoBackend(dataclasses.replace(graphs, folder=tmp_path), "fp32")
    with pytest.raises(ArtifactError, match=r"openvino_model\.xml: OpenVINO cannot load it \(.*\); export it again"):
        backend.run(rows.take([0]))


@pytest.mark.parametrize(
    ("widths", "group"),
    [([384, 1536], 384), ([768, 3072], 384), ([1024, 4096], 256), ([32, 64], 32), ([312, 1200], 0), ([16, 64], 0)],
)
def test_channels_that_share_a_scale_divide_every_layer(widths: list[int], group: int) -> None:
    assert _group(widths) == group
