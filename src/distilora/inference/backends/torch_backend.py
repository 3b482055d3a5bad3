"""The PyTorch backend: the encoder that the artifact names, with what training changed, or a merged model alone."""

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
from distilora.model.build import Held, load_merged, load_network
from distilora.model.encoders.find import find_encoder, same_encoder
from distilora.model.network import Network, run_network
from distilora.progress import say
from distilora.tasks.registry import restore

_one_begins = Lock()  # of the process, as the number of threads is that PyTorch gives to threads to come


class TorchBackend:
    """Runs a network in memory; `token_budget` None is the machine's."""

    def __init__(self, network: Network, precision: Precision, token_budget: int | None = None) -> None:
        self.network, self.precision = network.eval(), precision
        self.token_budget = pick_token_budget(token_budget, network.device)

    @property
    def lanes(self) -> int:
        """As many as PyTorch has threads in the calling thread, now; one on a GPU."""
        return torch.get_num_threads() if self.network.device.type == "cpu" else 1

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """Outputs [G, ...] of one micro-batch."""
        return run_network(self.network, rows, self.precision)

    def lane(self) -> Callable[[Rows], NDArray[np.float32]]:
        """`run` for a thread beside others; the number of threads of all others stays what it is.

        `set_num_threads` is for the calling thread and for those that PyTorch has yet to meet, and this thread, which it
        has not met, still has the number of the latter: so that is given back at once, by a thread that ends with it.
        """
        with _one_begins:
            to_come = torch.get_num_threads()
            torch.set_num_threads(1)
            giving_back = Thread(target=torch.set_num_threads, args=(to_come,))
            giving_back.start()
            giving_back.join()
        return self.run


def open_torch(
    artifact: Artifact,
    precision: Precision = "auto",
    device: Device = "auto",
    encoder: str | None = None,
    base: Base = "auto",
) -> TorchBackend:
    """The backend on an artifact; precision auto is what an export's parity gate chose, else what the machine computes in.

    Raises ConfigError without the device, EncoderError if the encoder is not there, ArtifactError if it is not the one the
    model was trained on or the base asked for does not fit, MissingExtra if a 4-bit base lacks its package.
    """
    place = pick_device(device)
    if place.type == "cpu":
        keep_freed_memory()
    own = resolve_precision(artifact, precision, place)
    return TorchBackend(open_network(artifact, own, place, encoder, base, plain=True), own)


def resolve_precision(artifact: Artifact, precision: Precision, device: torch.device) -> Precision:
    """'bf16' or 'fp32': what is asked for, else what the export's gate chose on such a processor, else what suits the device."""
    if precision == "auto" and artifact.parity and device.type == "cpu" and artifact.parity["flags"] == flags():
        precision = cast(Precision, artifact.precision)
    return pick_precision(precision, device)


def open_network(
    artifact: Artifact,
    precision: Precision,
    device: torch.device,
    encoder: str | None = None,
    base: Base | Held = "auto",
    plain: bool = False,
) -> Network:
    """The artifact's network, to predict with; raises as `open_torch` does. `base` 'widened' is for merging.

    `plain`: in PyTorch's modules alone where that is the same; else in those of Transformers and PEFT.
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
    held = _held(artifact, base)
    wanted = artifact.encoder
    found = find_encoder(encoder or wanted["name"], None if encoder else wanted["revision"])
    if not same_encoder(found, wanted):
        raise ArtifactError(
            f"encoder: {encoder or wanted['name']} has SHA-256 {found.sha256[:12]}, the model was trained on "
            f"{wanted['sha256'][:12]}; bring that encoder back"
        )
    assert artifact.weights != "onnx"  # open_backend has seen to that
    return load_network(
        found, task, artifact.folder, weights=artifact.weights, precision=precision, device=device,
        attention=artifact.attention, base=held, plain=plain,
    )  # fmt: skip


def _held(artifact: Artifact, base: Base | Held) -> Held:
    if artifact.quantisation is None:
        if base in ("4bit", "widened"):
            raise ArtifactError(
                f"base: {base} asked for, but this model was trained by {artifact.method}, not qlora; drop it"
            )
        return "full"
    if base == "full":
        agreed = artifact.agreement["full"]
        say(
            f"note: on the full-precision encoder instead of the 4-bit one of training; on {agreed['texts']:,} validation "
            f"texts {agreed['labels']:.2%} of the labels were the same"
            if "labels" in agreed
            else f"note: on the full-precision encoder instead of the 4-bit one of training; outputs differed by up to "
            f"{agreed['largest_difference']:.3g} on {agreed['texts']:,} validation texts"
        )
        return "full"
    require_bitsandbytes(", or predict on the full-precision encoder with --base full (in Python: base='full')")
    return "widened" if base == "widened" else "4bit"
