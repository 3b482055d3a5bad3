"""Runs an artifact on PyTorch: its encoder with the trained weights, or a merged model alone."""

from collections.abc import Callable
from threading import Lock, Thread
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from distilora.artifact.format import Artifact
from distilora.batching.rows import Rows
from distilora.config.schema import Base
from distilora.errors import ArtifactError
from distilora.hardware import (
    Device,
    Precision,
    flags,
    keep_freed_memory,
    pick_device,
    pick_precision,
    pick_token_budget,
)
from distilora.model.adapters.quantisation import require_bitsandbytes
from distilora.model.build import BaseForm, load_merged, load_network
from distilora.model.encoders.find import Encoder, find_encoder, same_encoder
from distilora.model.network import Network, run_network
from distilora.progress import say
from distilora.tasks.registry import restore

_lane_starts = Lock()  # process-wide, like the number of threads that PyTorch gives to new threads


class TorchBackend:
    """Backend of a network in memory; `token_budget` None is chosen for the machine."""

    def __init__(self, network: Network, precision: Precision, token_budget: int | None = None) -> None:
        self.network, self.precision = network.eval(), precision
        self.token_budget = pick_token_budget(token_budget, network.device)

    @property
    def lanes(self) -> int:
        """Number of PyTorch threads in the calling thread; 1 on a GPU."""
        return torch.get_num_threads() if self.network.device.type == "cpu" else 1

    def open(self) -> None:
        """Do nothing: the network is open, its weights in memory or mapped from files that may be deleted."""

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """Compute the outputs [G, ...] of one micro-batch."""
        return run_network(self.network, rows, self.precision)

    def lane(self) -> Callable[[Rows], NDArray[np.float32]]:
        """Return a `run` on one core; the number of threads of all other threads does not change."""
        use_one_core()
        return self.run


def use_one_core() -> None:
    """Let the calling thread, which must be new to PyTorch, compute on one core; all other threads keep their number.

    `set_num_threads` sets it for the calling thread and as the default for threads new to PyTorch. The calling thread is new, so
    what it reads is that default: a short-lived thread restores it at once.
    """
    with _lane_starts:
        default = torch.get_num_threads()
        torch.set_num_threads(1)
        restoring = Thread(target=torch.set_num_threads, args=(default,))
        restoring.start()
        restoring.join()


def open_torch(
    artifact: Artifact,
    precision: Precision = "auto",
    device: Device = "auto",
    encoder: str | None = None,
    base: Base = "auto",
) -> TorchBackend:
    """Open the backend of an artifact; precision auto is what an export's parity gate chose, else what suits the machine.

    Raises ConfigError without the device, EncoderError if the encoder is missing, ArtifactError if it is not the one the
    model was trained on or the base does not fit the model, MissingExtra if the package of a 4-bit base is missing.
    """
    torch_device = pick_device(device)
    if torch_device.type == "cpu":
        keep_freed_memory()
    resolved = resolve_precision(artifact, precision, torch_device)
    return TorchBackend(open_network(artifact, resolved, torch_device, encoder, base, plain=True), resolved)


def resolve_precision(artifact: Artifact, precision: Precision, device: torch.device) -> Precision:
    """Resolve precision to 'bf16' or 'fp32'.

    `auto` is what the export's gate chose on such a processor, else what suits the device.
    """
    if precision == "auto" and artifact.parity and device.type == "cpu" and artifact.parity["flags"] == flags():
        precision = cast(Precision, artifact.precision)
    return pick_precision(precision, device)


def open_network(
    artifact: Artifact,
    precision: Precision,
    device: torch.device,
    encoder: str | None = None,
    base: Base | BaseForm = "auto",
    plain: bool = False,
) -> Network:
    """Load the artifact's network for prediction; raises as `open_torch` does. `base` 'widened' is for merging.

    `plain` builds it of PyTorch's modules alone where the outputs are the same, else of those of Transformers and PEFT.
    """
    task = restore(artifact.task["name"], artifact.task["settings"])
    if artifact.weights == "merged":
        if encoder or base != "auto":
            raise ArtifactError(f"{'encoder' if encoder else 'base'}: given, but a merged model has its own; drop it")
        return load_merged(
            artifact.folder, task, precision=precision, device=device, attention=artifact.attention, plain=plain
        )
    if base not in ("auto", "4bit", "full", "widened"):
        raise ArtifactError(f"base: {base!r} given, auto, 4bit or full wanted")
    resolved_base = _resolve_base(artifact, base)
    candidate = trained_on(artifact, encoder)
    assert artifact.weights != "onnx"
    assert artifact.weights != "openvino"  # open_backend opens graphs elsewhere
    return load_network(
        candidate, task, artifact.folder, weights=artifact.weights, precision=precision, device=device,
        attention=artifact.attention, base=resolved_base, plain=plain,
    )  # fmt: skip


def trained_on(artifact: Artifact, encoder: str | None = None) -> Encoder:
    """Find the encoder that an artifact was trained on, at its present location `encoder` if it has moved.

    Raises EncoderError if it is missing, ArtifactError if it is another one.
    """
    recorded = artifact.encoder
    candidate = find_encoder(encoder or recorded["name"], None if encoder else recorded["revision"])
    if not same_encoder(candidate, recorded):
        raise ArtifactError(
            f"encoder: {encoder or recorded['name']} has SHA-256 {candidate.sha256[:12]}, the model was trained on "
            f"{recorded['sha256'][:12]}; bring that encoder back"
        )
    return candidate


def _resolve_base(artifact: Artifact, base: Base | BaseForm) -> BaseForm:
    if artifact.quantisation is None:
        if base in ("4bit", "widened"):
            raise ArtifactError(
                f"base: {base} asked for, but this model was trained by {artifact.method}, on the full-precision encoder; drop it"
            )
        return "full"
    if base == "full":
        agreement = artifact.agreement["full"]
        say(
            f"note: on the full-precision encoder instead of the 4-bit one of training; on {agreement['texts']:,} validation "
            f"texts {agreement['labels']:.2%} of the labels were the same"
            if "labels" in agreement
            else f"note: on the full-precision encoder instead of the 4-bit one of training; outputs differed by up to "
            f"{agreement['largest_difference']:.3g} on {agreement['texts']:,} validation texts"
        )
        return "full"
    require_bitsandbytes(", or predict on the full-precision encoder with --base full (in Python: base='full')")
    return "widened" if base == "widened" else "4bit"
