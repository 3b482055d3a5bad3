"""Merging of an artifact into one plain Transformers model: the trained update is added to the encoder's weights.

    W' = W + (alpha / r) B A        on a 4-bit base W is dequantised to fp32: the weights that the adapter was trained on

The last layer is divided by the temperature, so that a plain softmax gives calibrated probabilities. The folder loads with
`from_pretrained` and `pipeline`, without the encoder, PEFT or bitsandbytes. `export/export.py` makes an artifact of it.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distilora.artifact.format import Artifact
from distilora.errors import RoundTripError
from distilora.inference.backends.torch_backend import open_network
from distilora.model.encoders.families import Architecture
from distilora.model.network import Network
from distilora.model.quiet import quiet_libraries
from distilora.model.weights import merge
from distilora.model.writer import network_of
from distilora.tasks.registry import restore

TOLERANCE = 1e-4  # relative to the largest fp32 output: leaves room for sums in another order only


def merged_network(artifact: Artifact, encoder: str | None = None) -> Network:
    """Open the artifact's network in fp32 on the CPU, with adapters merged and the last layer divided by `divisor`.

    Raises ArtifactError if merged weights are not finite.
    """
    cpu = torch.device("cpu")
    network = open_network(artifact, "fp32", cpu, encoder, "widened" if artifact.quantisation else "auto")
    model, family = merge(network), network.architecture
    _divide_last_layer(model, family, divisor(artifact))
    return network_of(model, family, network.task).eval()


def divisor(artifact: Artifact) -> float:
    """Return what the last layer is divided by: the temperature, or 1 for a task that computes more of what comes out of it."""
    task = restore(artifact.task["name"], artifact.task["settings"])
    return 1.0 if task.finished else artifact.temperature


def check_agreement(unmerged: NDArray[np.float32], merged: NDArray[np.float32]) -> None:
    """Raise RoundTripError if fp32 outputs [G, ...] differ by more than summation order explains."""
    difference = float(np.abs(unmerged - merged).max(initial=0.0))
    allowed = TOLERANCE * max(float(np.abs(unmerged).max(initial=0.0)), 1.0)
    if not difference <= allowed:
        raise RoundTripError(
            f"merging: fp32 outputs differ by {difference:.3g} from the unmerged ones (allowed {allowed:.3g})"
        )


def write_transformers(
    model: Any, artifact: Artifact, folder: Path, special: dict[str, str], weights: bool = True
) -> None:
    """Write config.json, the weights if `weights` is set, and the tokenizer with its `special` tokens by role."""
    with quiet_libraries():
        if weights:
            model.save_pretrained(folder, safe_serialization=True)
        else:
            model.config.save_pretrained(folder)
    _write_tokenizer(artifact.folder / "tokenizer.json", folder, artifact.max_length, special)


def _divide_last_layer(model: Any, family: Architecture, temperature: float) -> None:
    if temperature == 1:
        return
    head = model.get_submodule(family.head_layers[-1])
    last = [layer for layer in head.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.div_(temperature)


def _write_tokenizer(source: Path, folder: Path, max_length: int, special: dict[str, str]) -> None:
    """Copy tokenizer.json unchanged and write the files that Transformers needs beside it.

    Transformers cuts on the side that is stored in tokenizer.json, else, for a model truncated in the middle, on the right.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_file(str(source))
    side = (tokenizer.truncation or {}).get("direction", "right")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, truncation_side=side, **special,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    fast.save_pretrained(folder)
    shutil.copyfile(source, folder / "tokenizer.json")
