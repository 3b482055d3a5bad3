"""Runs an exported graph on ONNX Runtime: model.onnx (fp32) or model_quantized.onnx (int8)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from distilora.errors import ArtifactError
from distilora.inference.backends.graph import Compute, GraphBackend, Inputs


class OnnxBackend(GraphBackend):
    """Backend of ONNX Runtime."""

    # Padded tokens a call: a long text runs alone and needs no mask, short ones share one pass over the weights
    # (LOG.md: One micro-batch on each core).
    token_budget = 512

    def _load(self, path: Path, lanes: int, threads: int) -> Callable[[], Compute]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exception types are not public
            reason = str(error).strip().splitlines()[0]
            raise ArtifactError(f"{path}: ONNX Runtime cannot load it ({reason}); export it again") from None

        def compute(inputs: Inputs) -> np.ndarray:
            return np.asarray(session.run(None, inputs)[0], np.float32)

        return lambda: compute  # lanes share a session
