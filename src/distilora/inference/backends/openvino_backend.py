"""Runs an exported graph on OpenVINO: openvino_model.xml (fp32 or bf16) or openvino_model_int8.xml.

int8    weights in 8 bits with a scale for each output; inputs are rounded while it computes, in groups of a token's channels;
        the rest in bf16 where the processor has it, else in fp32
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from distilora.errors import ArtifactError
from distilora.hardware import native_bf16
from distilora.inference.backends.graph import Compute, GraphBackend, Inputs
from distilora.progress import warn

_TELEMETRY = "openvino_telemetry"


class OpenVinoBackend(GraphBackend):
    """Backend of OpenVINO's CPU plugin."""

    token_budget = 1024  # padded tokens a call (LOG.md: OpenVINO)

    def _load(self, path: Path, lanes: int, threads: int) -> Callable[[], Compute]:
        core = runtime().Core()
        try:
            compiled = core.compile_model(core.read_model(str(path)), "CPU", self._settings(lanes, threads))
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
            raise ArtifactError(f"{path}: OpenVINO cannot load it ({reason}); export it again") from None

        def lane() -> Compute:
            request = compiled.create_infer_request()  # of one thread at a time

            def compute(inputs: Inputs) -> np.ndarray:
                request.infer(inputs)
                return np.array(request.get_output_tensor(0).data, np.float32)  # a copy: the tensor is overwritten

            return compute

        return lane

    def _settings(self, lanes: int, threads: int) -> dict[str, Any]:
        if self.precision == "bf16" and not native_bf16():
            warn(f"{self.path}: bf16 was chosen, but this processor does not compute in it; fp32 answers in its place")
            self.precision = "fp32"
        half = self.precision != "fp32" and native_bf16()
        return {
            "NUM_STREAMS": lanes,
            "INFERENCE_NUM_THREADS": lanes * threads,
            "ENABLE_CPU_PINNING": False,  # other processes use these cores, too
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        }


def runtime() -> Any:
    """Import OpenVINO without its telemetry, which otherwise reports the import itself. Raises ImportError without OpenVINO."""
    if sys.modules.get("openvino") is not None:
        return sys.modules["openvino"]
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # an import of it fails, and OpenVINO takes its stub
    try:
        return import_module("openvino")
    finally:
        if before is None:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before
