"""Saves a network's trained weights, and merges them into one model."""

from pathlib import Path
from typing import Any

import torch

from distilora.errors import ArtifactError
from distilora.model.adapters.saved import SAVED_FORMS, Saved
from distilora.model.network import Network
from distilora.model.quiet import quiet_libraries


def save_weights(network: Network, folder: Path, form: Saved) -> None:
    """Write the trained weights into a model's folder, in one of the forms of model/adapters/saved.py."""
    SAVED_FORMS[form].save(network, folder)


def merge(network: Network) -> Any:
    """Add the adapter's updates into the weights and return the Transformers class; `network` is used up.

    Raises ArtifactError if a merged weight is not finite, ValueError on a 4-bit base, which would round the result.
    """
    if not network.has_adapter:
        model = network.model
    else:
        if getattr(network.model, "is_loaded_in_4bit", False):
            raise ValueError("merge onto the widened base")
        try:
            with quiet_libraries():
                model = network.outer.merge_and_unload(safe_merge=True)  # on a copy of each weight, checked for NaN
        except ValueError as error:
            raise ArtifactError(
                f"merging: {' '.join(str(error).split())}; the adapter is not usable, train it again"
            ) from None
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ArtifactError(f"merging: {name} is not finite; the weights are not usable, train them again")
    return model
