"""Starts a run from the trained weights of a former one (`init_from`): an adapter of the same shape, a head that may have grown.

The head's last layer is copied label by label, so classes may be new, gone or in another order; a new one has fresh weights.
Where no label is the same, as after intermediate training on another task, the last layer is fresh.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from distilora.artifact.format import Artifact, read_artifact
from distilora.config.schema import RunConfig
from distilora.data.examples import Examples
from distilora.data.overlap import seen_among, seen_file
from distilora.errors import ConfigError, DistiloraError
from distilora.model.adapters.methods import METHODS
from distilora.model.adapters.saved import SAVED_FORMS, Saved
from distilora.model.encoders.find import Encoder, same_encoder
from distilora.progress import say

if TYPE_CHECKING:
    from distilora.model.network import Network


def check_initial(config: RunConfig, encoder: Encoder) -> Artifact | None:
    """Return the former run's artifact, None without one. Raises ConfigError if this run cannot start from its weights."""
    if config.init_from is None:
        return None
    try:
        artifact = read_artifact(config.init_from)
    except DistiloraError as error:
        raise ConfigError(f"init_from: {error}") from None
    method = METHODS[config.adapter.method]
    if artifact.weights != method.saved:
        raise ConfigError(
            f"init_from: {config.init_from} holds {artifact.weights} weights, method {method.name} trains {method.saved} "
            "ones; give the run itself, of the same method, not an export"
        )
    if not same_encoder(encoder, artifact.encoder):
        raise ConfigError(
            f"init_from: {config.init_from} was trained on {artifact.encoder['name']} (SHA-256 {artifact.encoder['sha256'][:12]}), "
            f"not on {encoder.name}; give that encoder.name"
        )
    return artifact


def start_from(network: "Network", artifact: Artifact) -> dict[str, Any]:
    """Copy the former run's trained weights into `network`; return what metrics.json says of it.

    Raises ConfigError if a weight has another shape, which another rank or other layers give it.
    """
    import torch

    from distilora.inference.backends.torch_backend import open_network

    former = open_network(artifact, "fp32", torch.device("cpu"))
    weights, old, new = former.trained(), former.task, network.task
    last = network.architecture.head_layers[-1]
    kept = [label for label in new.labels if label in old.labels]
    with torch.no_grad():
        for name, parameter in network.trained().items():
            source = weights.get(name)
            if source is None:
                raise ConfigError(
                    f"init_from: {artifact.folder} has no weights {name}; give the settings of `adapter` that it was trained with"
                )
            if last in name.split(".") and _of_outputs(parameter, new.outputs) and old.labels != new.labels:
                for label in kept:
                    parameter[new.labels.index(label)] = source[old.labels.index(label)].to(parameter)
            elif source.shape == parameter.shape:
                parameter.copy_(source)
            else:
                raise ConfigError(
                    f"init_from: {name} has the shape {tuple(source.shape)} in {artifact.folder}, here {tuple(parameter.shape)}; "
                    "give the settings of `adapter` that it was trained with"
                )
    fresh = [label for label in new.labels if label not in old.labels]
    if fresh or not kept:
        heads = f"the labels {', '.join(fresh)}" if fresh and kept else "the whole last layer: no label is the same"
        say(f"starting from {artifact.folder}: fresh weights for {heads}")
    run = artifact.folder.parent.name
    return {
        "run": run,
        "weights_sha256": artifact.files[SAVED_FORMS[cast(Saved, artifact.weights)].file],
        "labels_kept": kept,
        "labels_new": fresh,
    }


def _of_outputs(parameter: Any, outputs: int) -> bool:
    """Tell whether a weight of the head's last layer has a row for each output."""
    return bool(parameter.shape[0] == outputs)


def former_texts(artifact: Artifact, measured: Sequence[Examples]) -> list[str]:
    """Say, as sentences for the report, how many of the examples measured here the former run was trained or chosen on."""
    hashes = seen_file(artifact.folder)
    if hashes is None:
        return [
            "The run that this one started from does not record its texts: some of them may be among those measured here."
        ]
    notes = []
    for part in measured:
        seen = int(seen_among(part, hashes).sum())
        if seen:
            notes.append(
                f"Leak: the run that this one started from was trained or chosen on {seen:,} of the {len(part):,} texts of "
                f"{part.split}; figures there flatter."
            )
    return notes
