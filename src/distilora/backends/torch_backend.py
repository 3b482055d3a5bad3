"""The PyTorch backend: the encoder that the artifact names, with its adapter and heads on top."""

import numpy as np
import torch
from numpy.typing import NDArray

from distilora.artifact import Artifact
from distilora.config import Device, Precision
from distilora.encode import Network
from distilora.encoders import find_encoder
from distilora.errors import ArtifactError
from distilora.hardware import pick_device, pick_precision, pick_token_budget
from distilora.network import load_network
from distilora.rows import Rows
from distilora.tasks import restore


class TorchBackend:
    """Runs an artifact with PyTorch.

    Raises EncoderError if the encoder is not there, ArtifactError if it is not the one the model was trained on.
    """

    def __init__(
        self, artifact: Artifact, precision: Precision = "auto", device: Device = "auto", encoder: str | None = None
    ) -> None:
        place = pick_device(device)
        self.precision = pick_precision(precision, place)
        self.token_budget = pick_token_budget(None, place)
        wanted = artifact.encoder
        found = find_encoder(encoder or wanted["name"], None if encoder else wanted["revision"])
        if found.sha256 != wanted["sha256"]:
            raise ArtifactError(
                f"encoder: {encoder or wanted['name']} has SHA-256 {found.sha256[:12]}, the model was trained on "
                f"{wanted['sha256'][:12]}; bring that encoder back"
            )
        self.network = load_network(
            found,
            restore(artifact.task["name"], artifact.task["settings"]),
            artifact.folder / "adapter",
            precision=self.precision,
            device=place,
            attention=artifact.attention,
        )

    def run(self, rows: Rows) -> NDArray[np.float32]:
        """Outputs [G, ...] of one micro-batch."""
        return run_network(self.network, rows, self.precision)


def run_network(network: Network, rows: Rows, precision: str) -> NDArray[np.float32]:
    """Outputs of one micro-batch without gradients; used for validation, too, so that both are the same numbers."""
    with torch.inference_mode(), torch.autocast(network.device.type, torch.bfloat16, enabled=precision == "bf16"):
        outputs = network(rows)
    return outputs.float().cpu().numpy()  # type: ignore[no-any-return]
