"""Exported graphs: the answers of the run in any batch, in plain ONNX Runtime, without torch; what they cannot do is refused."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from support.fresh import Fresh
from support.tiny import tiny_reviews
from tokenizers import Tokenizer

from distilora.artifact.format import SCHEMA, read_artifact
from distilora.cli.main import main
from distilora.errors import ArtifactError, ConfigError, MissingExtra
from distilora.export.export import export_run
from distilora.inference.backends import open_backend
from distilora.inference.predictor import Predictor, load
from distilora.tasks.classification import softmax

COMMAND = "from distilora.cli.main import main; sys.exit(main(sys.argv[1:]))"
Captured = pytest.CaptureFixture[str]
TEXTS = [*(text for text, _ in tiny_reviews(120, 9)), "superb film " * 60, "film"]


@pytest.fixture(scope="module")
def original(finished: Path) -> Predictor:
    return load(finished, "fp32", "cpu")


def logits(answers: list[dict[str, float]]) -> NDArray[np.float64]:
    return np.asarray([np.log(answer["p_pos"] / answer["p_neg"]) for answer in answers])


def test_both_graphs_answer_as_the_run_does(graphs: Path, original: Predictor) -> None:
    expected = original(TEXTS)
    for precision, allowed in (("fp32", 1e-4), ("int8", 0.5)):
        predictor = load(graphs, precision)
        assert (predictor.backend.precision, type(predictor.backend).__name__) == (precision, "OnnxBackend")
        answers = predictor(TEXTS)
        assert [a["truncated"] for a in answers] == [a["truncated"] for a in expected]
        np.testing.assert_allclose(logits(answers), logits(expected), rtol=0, atol=allowed)
        assert (
            precision == "fp32" or np.abs(logits(answers) - logits(expected)).max() > 1e-4
        )  # it is another arithmetic


def test_what_is_recorded(graphs: Path, finished: Path) -> None:
    artifact, run = read_artifact(graphs), read_artifact(finished)
    parity = artifact.parity
    assert (artifact.weights, artifact.temperature, artifact.schema) == ("onnx", 1.0, SCHEMA)
    assert (artifact.task, artifact.cleaning, artifact.max_length) == (run.task, run.cleaning, run.max_length)
    assert set(parity["candidates"]) == {"onnx fp32", "onnx int8"}
    assert parity["default"] == f"onnx {artifact.precision}"
    assert parity["candidates"][parity["default"]]["passed"]
    assert (parity["texts"], parity["metric"], parity["accepted_loss"]) == (40, "accuracy", False)
    assert parity["candidates"]["onnx fp32"]["agreement"] == 1.0
    assert load(graphs).backend.precision == artifact.precision


def test_plain_onnxruntime_with_the_documented_signature(graphs: Path, original: Predictor) -> None:
    tokenizer = Tokenizer.from_file(str(graphs / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=7)  # any id
    batch = tokenizer.encode_batch(TEXTS[:20])
    ids, mask = (np.asarray([getattr(e, name) for e in batch], np.int64) for name in ("ids", "attention_mask"))
    assert 0 in mask
    expected = np.asarray([[a["p_neg"], a["p_pos"]] for a in original(TEXTS[:20])])
    for file, allowed in (("model.onnx", 1e-5), ("model_quantized.onnx", 0.05)):
        session = onnxruntime.InferenceSession(graphs / "onnx" / file, providers=["CPUExecutionProvider"])
        assert [(i.name, i.type) for i in session.get_inputs()] == [
            ("input_ids", "tensor(int64)"), ("attention_mask", "tensor(int64)"),
        ]  # fmt: skip
        (out,) = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        np.testing.assert_allclose(softmax(out), expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_batch_mates_do_not_matter(precision: str, graphs: Path, original: Predictor) -> None:
    """Any split: within 1e-5 in fp32; in int8 the same label wherever the fp32 margin exceeds 0.02."""
    rng = np.random.default_rng(5)
    predictor = load(graphs, precision)
    expected = predictor(TEXTS)
    margin = np.abs(np.asarray([a["p_pos"] - a["p_neg"] for a in original(TEXTS)]))
    for _ in range(8):
        order = rng.permutation(len(TEXTS))
        places = np.sort(rng.choice(np.arange(1, len(TEXTS)), rng.integers(1, 20), replace=False))
        predictor.backend.token_budget = int(rng.choice([8, 70, 300, 5000]))
        predictor.backend.lanes = int(rng.integers(1, 3))
        for part in np.split(order, places):
            for place, answer in zip(part, predictor([TEXTS[i] for i in part]), strict=True):
                if precision == "fp32":
                    assert answer == pytest.approx(expected[place], abs=1e-5)
                elif margin[place] > 0.02:
                    assert answer["label"] == expected[place]["label"]


def test_the_int8_graph_is_in_8_bits(graphs: Path) -> None:
    whole, small = (onnx.load(graphs / "onnx" / name) for name in ("model.onnx", "model_quantized.onnx"))
    kinds = [node.op_type for node in small.graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 4  # of one block; the last one computes a row a text
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in small.graph.initializer}
    assert sum(value.dtype == np.int8 and value.ndim == 2 for value in weights.values()) == 4
    assert sum(tensor.ByteSize() for tensor in small.graph.initializer) < sum(
        tensor.ByteSize() for tensor in whole.graph.initializer
    )


def test_attention_needs_no_mask_where_nothing_is_padded(graphs: Path, original: Predictor) -> None:
    for name in ("model.onnx", "model_quantized.onnx"):
        (either,) = [node for node in onnx.load(graphs / "onnx" / name).graph.node if node.op_type == "If"]
        kinds = {attribute.name: attribute.g.node[0] for attribute in either.attribute}
        assert {node.op_type for node in kinds.values()} == {"MultiHeadAttention"}
        assert [len(kinds[branch].input) for branch in ("then_branch", "else_branch")] == [3, 5]
    predictor = load(graphs, "fp32")
    predictor.backend.token_budget = 1  # every text alone, then all together
    alone = predictor(TEXTS)
    predictor.backend.token_budget = 100_000
    for one, among, expected in zip(alone, predictor(TEXTS), original(TEXTS), strict=True):
        assert one == pytest.approx(among, abs=1e-5)
        assert one["p_pos"] == pytest.approx(expected["p_pos"], abs=1e-5)


def test_a_graph_is_evaluated(graphs: Path, reviews: Path, tmp_path: Path, capsys: Captured) -> None:
    words = ["evaluate", str(graphs), "--data.path", str(reviews), "--output", str(tmp_path), "--precision", "int8"]
    assert main([*words, "--evaluation.bootstrap", "100"]) == 0
    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert (summary["precision"], summary["evaluation"]["examples"]) == ("int8", 300)
    assert summary["evaluation"]["metrics"]["accuracy"]["value"] > 0.8
    assert "of these 300 texts were trained or chosen on" in capsys.readouterr().err


def test_a_fresh_process_without_torch(graphs: Path, fresh: Fresh) -> None:
    done = fresh(
        "predict", graphs, "superb film", "--json", code=COMMAND, without=["torch", "transformers", "peft", "onnx"]
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["label"] == "pos"
    done = fresh("predict", graphs, "superb film", code=COMMAND, without=["onnxruntime"])
    assert (done.code, done.err) == (
        2, "distilora: onnxruntime is not installed; install it with: pip install 'distilora[serve]'\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"backend": "torch"}, ConfigError, "backend: torch asked for, but .* is for onnx; drop it, or export"),
        ({"precision": "bf16"}, ConfigError, "precision: bf16 given, but .* holds fp32 and int8; drop it"),
        ({"device": "cuda"}, ConfigError, "device: cuda given, but the onnx backend computes on the CPU; drop it"),
        ({"encoder": "somewhere"}, ArtifactError, "encoder: given, but an onnx model has its own; drop it"),
        ({"base": "full"}, ArtifactError, "base: given, but an onnx model has its own; drop it"),
    ],
)
def test_what_a_graph_cannot_do(settings: dict[str, str], error: type, said: str, graphs: Path) -> None:
    with pytest.raises(error, match=f"^{said}"):
        load(graphs, **settings)


def test_what_a_run_cannot_do(finished: Path, graphs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^backend: onnx asked for, but .* is for torch; drop it, or export"):
        load(finished, backend="onnx")
    with pytest.raises(ConfigError, match=r"^precision: int8 given, but the torch backend has none; export"):
        load(finished, precision="int8")
    with pytest.raises(ArtifactError, match="is exported already; copy it, or export the run"):
        export_run(graphs, "onnx", tmp_path / "again")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precision": "int8"}, "precision: int8 given, but the torch backend has none"),
        ({"precision": "bf16", "device": "mps"}, "precision: bf16 is not supported on mps; choose fp32"),
        ({"precision": "fp16"}, "precision: 'fp16' given, auto, bf16, fp32 or int8 wanted"),
        ({"device": "tpu"}, "device: 'tpu' given, auto, cpu, cuda or mps wanted"),
        ({"kind": "jax"}, "backend: 'jax' given, auto, torch, onnx or openvino wanted"),
        ({"kind": "onnx"}, "backend: onnx asked for, but "),
    ],
)
def test_a_refusal_comes_before_torch(
    settings: dict[str, str], said: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        sys.modules, "distilora.inference.backends.torch_backend", None
    )  # which imports torch: it cannot be imported
    with pytest.raises(ConfigError, match=f"^{said}"):
        open_backend(read_artifact(finished), **settings)
    with pytest.raises(MissingExtra):
        open_backend(read_artifact(finished))


def test_everybody_may_read_it(graphs: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert {file.stat().st_mode & 0o777 for file in graphs.iterdir() if file.is_file()} == {0o666 & ~mask}


def test_a_damaged_graph(graphs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(graphs, tmp_path / "copy")
    (folder / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        load(folder)
