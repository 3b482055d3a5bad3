"""Runs an exported graph on ONNX Runtime, without PyTorch: model.onnx (fp32) or model_quantized.onnx (int8)."""

from collections.abc import Callable
from functools import cached_property, partial
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from distilora.artifact.format import Artifact
from distilora.batching.rows import Rows
from distilora.errors import ArtifactError
from distilora.hardware import InferencePrecision, threads
from distilora.inference.backends import graphs
from distilora.tasks.registry import restore
from distilora.tasks.token_outputs import TokenTask

# Padded tokens a call: a long text runs alone and needs no mask, short ones share one pass over the weights
# (LOG.md: One micro-batch on each core).
BUDGET = 512


Collect = Callable[[NDArray[np.float32], Rows], NDArray[np.float32]]


class OnnxBackend:
    """Backend of an exported folder, on the CPU, in a precision that it holds (`open_backend` has checked)."""

    token_budget = BUDGET

    def __init__(self, artifact: Artifact, precision: InferencePrecision = "auto") -> None:
        self.precision: Any = artifact.precision if precision == "auto" else precision
        self.path = graphs(artifact)[self.precision]
        task = restore(artifact.task["name"], artifact.task["settings"])
        self._collect = task.collect if isinstance(task, TokenTask) else None
        self.threads = threads()
        self.lanes = self.threads
        self._opening = Lock()

    @cached_property
    def together(self) -> Any:
        """Session for one micro-batch on all cores."""
        return self._session(self.threads)

    @cached_property
    def alone(self) -> Any:
        """Session for a lane."""
        return self._session(1)

    def open(self) -> None:
        """Open both sessions, which need no file afterwards."""
        _ = self.together, self.alone

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """Compute the outputs [G, ...] of one micro-batch, padded to its longest row."""
        return _run(self.together, self._collect, rows)

    def lane(self) -> Callable[[Rows], NDArray[np.float32]]:
        """Return a `run` on one core."""
        with self._opening:  # lanes start together, and the session is opened once
            return partial(_run, self.alone, self._collect)

    def _session(self, threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
        try:
            return onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exception types are not public
            reason = str(error).strip().splitlines()[0]
            raise ArtifactError(f"{self.path}: ONNX Runtime cannot load it ({reason}); export it again") from None


def _run(session: Any, collect: Collect | None, rows: Rows) -> NDArray[np.float32]:
    inputs = feed(rows)
    outputs = np.asarray(session.run(None, inputs)[0], np.float32)
    if collect is not None:
        return collect(outputs[inputs["attention_mask"] > 0], rows)
    if len(rows) != rows.groups:
        raise ArtifactError("examples of several rows cannot be run by the onnx backend; use backend torch")
    return outputs


def feed(rows: Rows) -> dict[str, NDArray[np.int64]]:
    """Pad rows to the graph's inputs, [B, longest] each."""
    lengths = rows.lengths
    inside = np.arange(int(lengths.max(initial=1)))[None] < lengths[:, None]
    ids = np.zeros(inside.shape, np.int64)
    ids[inside] = rows.ids
    return {"input_ids": ids, "attention_mask": inside.astype(np.int64)}
