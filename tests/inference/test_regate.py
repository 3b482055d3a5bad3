"""int8 on a processor with other instructions than the one of the export: measured again on check.npz."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny import tiny_reviews

from distilora import hardware
from distilora.artifact.check import read_check
from distilora.artifact.format import read_artifact
from distilora.batching import tokens
from distilora.batching.rows import Rows
from distilora.errors import ArtifactError
from distilora.inference import predictor as predict
from distilora.inference.backends.onnx_backend import OnnxBackend
from distilora.inference.predictor import Predictor, load
from distilora.inference.regate import regate
from distilora.progress import quiet

Captured = pytest.CaptureFixture[str]
TEXTS = [text for text, _ in tiny_reviews(5, 9)]


class TestAnotherProcessor:
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
            changed = dataclasses.replace(artifact, files=files, parity={**artifact.parity, **parity})
            monkeypatch.setattr(predict, "find_model", lambda path: changed)
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
        expected = load(predictor.artifact.folder, "fp32")(TEXTS[:5])
        assert predictor(TEXTS[:5]) == expected

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
        expected = read_check(artifact.folder).outputs_fp32
        for share, passes in ((0.009, True), (0.011, False)):
            outputs = expected + np.float32(share) * np.abs(expected).max()
            monkeypatch.setattr("distilora.inference.regate.run_rows", lambda *rest, outputs=outputs: outputs)
            assert regate(artifact, task, OnnxBackend(artifact, "int8"))[0] == passes
