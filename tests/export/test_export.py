"""Exports as graphs: the same answers, in any batch, in plain ONNX Runtime; a gate that can be failed; nothing half-written."""

import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from support.fresh import Fresh, verify_here
from support.tiny import tiny_reviews, write_csv
from tokenizers import Tokenizer

from distilora import hardware
from distilora.artifact.check import read_check
from distilora.artifact.format import SCHEMA, read_artifact
from distilora.batching import tokens
from distilora.batching.rows import Rows
from distilora.cli.main import main
from distilora.errors import ArtifactError, ConfigError, DataError, MissingExtra, ParityError
from distilora.export import export, parity
from distilora.export.export import export_run
from distilora.inference import predictor as predict
from distilora.inference.backends import open_backend
from distilora.inference.backends.onnx_backend import OnnxBackend
from distilora.inference.predictor import Predictor, load
from distilora.inference.regate import regate
from distilora.progress import quiet
from distilora.tasks.classification import softmax

COMMAND = "from distilora.cli.main import main; sys.exit(main(sys.argv[1:]))"
Captured = pytest.CaptureFixture[str]
TEXTS = [*(text for text, _ in tiny_reviews(120, 9)), "superb film " * 60, "film"]


@pytest.fixture(scope="module")
def graphs(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both graphs, as Transformers.js has them."""
    folder = tmp_path_factory.mktemp("graphs") / "js"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "verify", verify_here)
        export_run(finished, "transformersjs", folder)
    return folder


@pytest.fixture(scope="module")
def original(finished: Path) -> Predictor:
    return load(finished, "fp32", "cpu")


def logits(answers: list[dict[str, float]]) -> NDArray[np.float64]:
    return np.asarray([np.log(answer["p_pos"] / answer["p_neg"]) for answer in answers])


def test_both_graphs_answer_as_the_run_does(graphs: Path, original: Predictor) -> None:
    wanted = original(TEXTS)
    for precision, allowed in (("fp32", 1e-4), ("int8", 0.5)):
        predictor = load(graphs, precision)
        assert (predictor.backend.precision, type(predictor.backend).__name__) == (precision, "OnnxBackend")
        answers = predictor(TEXTS)
        assert [a["truncated"] for a in answers] == [a["truncated"] for a in wanted]
        np.testing.assert_allclose(logits(answers), logits(wanted), rtol=0, atol=allowed)
        assert precision == "fp32" or np.abs(logits(answers) - logits(wanted)).max() > 1e-4  # it is another arithmetic


def test_what_is_recorded(graphs: Path, finished: Path) -> None:
    artifact, run = read_artifact(graphs), read_artifact(finished)
    found = artifact.parity
    assert (artifact.weights, artifact.temperature, artifact.schema) == ("onnx", 1.0, SCHEMA)
    assert (artifact.task, artifact.cleaning, artifact.max_length) == (run.task, run.cleaning, run.max_length)
    assert set(found["candidates"]) == {"onnx fp32", "onnx int8"}
    assert found["default"] == f"onnx {artifact.precision}"
    assert found["candidates"][found["default"]]["passed"]
    assert (found["texts"], found["metric"], found["accepted_loss"]) == (40, "accuracy", False)
    assert found["candidates"]["onnx fp32"]["agreement"] == 1.0
    assert load(graphs).backend.precision == artifact.precision


def test_plain_onnxruntime_with_the_documented_signature(graphs: Path, original: Predictor) -> None:
    tokenizer = Tokenizer.from_file(str(graphs / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=7)  # any id
    batch = tokenizer.encode_batch(TEXTS[:20])
    ids, mask = (np.asarray([getattr(e, name) for e in batch], np.int64) for name in ("ids", "attention_mask"))
    assert 0 in mask
    wanted = np.asarray([[a["p_neg"], a["p_pos"]] for a in original(TEXTS[:20])])
    for file, allowed in (("model.onnx", 1e-5), ("model_quantized.onnx", 0.05)):
        session = onnxruntime.InferenceSession(graphs / "onnx" / file, providers=["CPUExecutionProvider"])
        assert [(i.name, i.type) for i in session.get_inputs()] == [
            ("input_ids", "tensor(int64)"), ("attention_mask", "tensor(int64)"),
        ]  # fmt: skip
        (out,) = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        np.testing.assert_allclose(softmax(out), wanted, rtol=0, atol=allowed)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_batch_mates_do_not_matter(precision: str, graphs: Path, original: Predictor) -> None:
    """Any split: within 1e-5 in fp32; in int8 the same label wherever the fp32 margin exceeds 0.02."""
    rng = np.random.default_rng(5)
    predictor = load(graphs, precision)
    wanted = predictor(TEXTS)
    margin = np.abs(np.asarray([a["p_pos"] - a["p_neg"] for a in original(TEXTS)]))
    for _ in range(8):
        order = rng.permutation(len(TEXTS))
        places = np.sort(rng.choice(np.arange(1, len(TEXTS)), rng.integers(1, 20), replace=False))
        predictor.backend.token_budget = int(rng.choice([8, 70, 300, 5000]))
        predictor.backend.lanes = int(rng.integers(1, 3))
        for part in np.split(order, places):
            for place, answer in zip(part, predictor([TEXTS[i] for i in part]), strict=True):
                if precision == "fp32":
                    assert answer == pytest.approx(wanted[place], abs=1e-5)
                elif margin[place] > 0.02:
                    assert answer["label"] == wanted[place]["label"]


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
    for one, among, wanted in zip(alone, predictor(TEXTS), original(TEXTS), strict=True):
        assert one == pytest.approx(among, abs=1e-5)
        assert one["p_pos"] == pytest.approx(wanted["p_pos"], abs=1e-5)


def test_a_graph_is_evaluated(graphs: Path, reviews: Path, tmp_path: Path, capsys: Captured) -> None:
    words = ["evaluate", str(graphs), "--data.path", str(reviews), "--output", str(tmp_path), "--precision", "int8"]
    assert main([*words, "--evaluation.bootstrap", "100"]) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert (found["precision"], found["evaluation"]["examples"]) == ("int8", 300)
    assert found["evaluation"]["metrics"]["accuracy"]["value"] > 0.8
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
        ({"kind": "jax"}, "backend: 'jax' given, auto, torch or onnx wanted"),
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


def test_an_unknown_form(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^to: 'tflite' given, merged, onnx, onnx-int8, transformersjs wanted"):
        export_run(finished, "tflite", tmp_path / "out")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_everybody_may_read_it(graphs: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert {file.stat().st_mode & 0o777 for file in graphs.iterdir() if file.is_file()} == {0o666 & ~mask}


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


def test_a_damaged_graph(graphs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(graphs, tmp_path / "copy")
    (folder / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        load(folder)


class TestAnotherProcessor:
    """int8 where the instruction set is not the one of the export: measured again on check.npz."""

    @pytest.fixture(autouse=True)
    def elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hardware, "cpu_flags", lambda: ["sse", "avx2"])

    @pytest.fixture
    def flipped(self, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
        """Sets how many texts int8 gives another label than fp32."""
        run, whole, counts = OnnxBackend.run, OnnxBackend(read_artifact(graphs), "fp32"), [0]

        def saturated(backend: OnnxBackend, rows: Rows) -> NDArray[np.float32]:
            outputs = run(whole, rows)
            count = min(counts[0], len(outputs)) if backend.precision == "int8" else 0
            counts[0] -= count
            outputs[:count] = -outputs[:count]
            return outputs

        monkeypatch.setattr(OnnxBackend, "run", saturated)
        return lambda count: counts.__setitem__(0, count)

    @pytest.fixture
    def with_int8(self, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Predictor]:
        """The predictor of an artifact whose default is int8, alone or beside fp32."""
        artifact = dataclasses.replace(read_artifact(graphs), precision="int8")
        (small,) = [name for name in artifact.files if name.endswith("model_quantized.onnx")]

        def loaded(precision: str = "auto", alone: bool = False, **parity: object) -> Predictor:
            files = {small: artifact.files[small]} if alone else artifact.files
            found = dataclasses.replace(artifact, files=files, parity={**artifact.parity, **parity})
            monkeypatch.setattr(predict, "find_model", lambda path: found)
            return load(graphs, precision)

        return loaded

    def test_what_passes_is_said(
        self, with_int8: Callable[..., Predictor], flipped: Callable[[int], None], capsys: Captured
    ) -> None:
        flipped(1)
        assert with_int8().backend.precision == "int8"
        said = capsys.readouterr().err
        assert "note: int8 was measured on a processor with " in said
        assert re.search(r", this one has avx2; measured again here: 1 of 32 check texts have another label", said)
        assert with_int8(flags=["avx2"]).backend.precision == "int8"
        assert capsys.readouterr().err == ""

    def test_what_fails_is_replaced(
        self, with_int8: Callable[..., Predictor], flipped: Callable[[int], None], capsys: Captured
    ) -> None:
        flipped(8)
        quiet()
        try:
            predictor = with_int8()
        finally:
            quiet(False)
        assert predictor.backend.precision == "fp32"
        said = capsys.readouterr().err
        assert re.search(
            r"^warning: .* this one has avx2, and \d of 32 check texts have another label than in fp32 ", said
        )
        assert said.endswith("(at most 1 may); fp32 answers in its place\n")
        wanted = load(predictor.artifact.folder, "fp32")(TEXTS[:5])
        assert predictor(TEXTS[:5]) == wanted

    @pytest.mark.parametrize(
        ("settings", "fix"),
        [
            ({"precision": "int8"}, "use precision fp32"),
            ({"alone": True}, "export the run again on this processor, or to onnx"),
        ],
    )
    def test_what_fails_is_refused(
        self, settings: dict[str, Any], fix: str, with_int8: Callable[..., Predictor], flipped: Callable[[int], None]
    ) -> None:
        flipped(8)
        with pytest.raises(ArtifactError, match=f"^precision: int8 was measured on .*; {fix}$"):
            with_int8(**settings)

    def test_the_limit(self, with_int8: Callable[..., Predictor], flipped: Callable[[int], None]) -> None:
        """One text of 32; as large a share as the export lost where that was accepted; never where flags are unknown."""
        predictor = with_int8()
        artifact, task = predictor.artifact, predictor.task
        backend = OnnxBackend(artifact, "int8")
        for loss, count, passes in ((0.0, 1, True), (0.0, 2, False), (0.125, 4, True), (0.125, 5, False)):
            parity = {
                **artifact.parity,
                "accepted_loss": loss > 0,
                "candidates": {"onnx int8": {"agreement": 1 - loss}},
            }
            flipped(count)
            assert regate(dataclasses.replace(artifact, parity=parity), task, backend)[0] == passes
        flipped(2)
        with pytest.raises(ArtifactError, match="with unknown flags, this one has avx2"):
            with_int8("int8", flags=[])

    def test_a_task_without_labels(self, with_int8: Callable[..., Predictor], monkeypatch: pytest.MonkeyPatch) -> None:
        artifact = with_int8().artifact
        task = SimpleNamespace(agreement=lambda ours, theirs: None, tokenise=tokens.tokenise)
        wanted = read_check(artifact.folder).outputs_fp32
        for share, passes in ((0.009, True), (0.011, False)):
            outputs = wanted + np.float32(share) * np.abs(wanted).max()
            monkeypatch.setattr("distilora.inference.regate.run_rows", lambda *rest, outputs=outputs: outputs)
            assert regate(artifact, task, OnnxBackend(artifact, "int8"))[0] == passes


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
        found = export_run(finished, "merged", tmp_path / "out").parity
        passing = {n: c["texts_per_s"] for n, c in found["candidates"].items() if c["passed"]}
        assert found["default"] == max(passing, key=lambda name: passing[name])

    def test_held_out_texts(self, finished: Path, tmp_path: Path, capsys: Captured) -> None:
        moved = shutil.copytree(finished / "model", tmp_path / "model")
        with pytest.raises(DataError, match=r"^--held-out: .* is not in its run's folder, .* give labelled texts"):
            export_run(moved, "merged", tmp_path / "out")
        given = write_csv(tmp_path / "given.csv", tiny_reviews(50, 3))
        found = export_run(moved, "merged", tmp_path / "out", held_out=str(given)).parity
        assert (found["texts"], found["held_out"]) == (50, f"{given}, train")
        assert "note: 50 held-out texts instead of 1,000" in capsys.readouterr().err
        with pytest.raises(DataError, match="no-such"):
            export_run(moved, "merged", tmp_path / "again", held_out=str(tmp_path / "no-such.csv"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["given.csv", "model", "out"]

    def test_missing_packages_are_named(self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from importlib import util

        found = util.find_spec
        monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == "onnxscript" else found(name, *rest))
        with pytest.raises(MissingExtra, match=r"onnxscript is not installed; .*distilora\[export\]"):
            export_run(finished, "onnx", tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
