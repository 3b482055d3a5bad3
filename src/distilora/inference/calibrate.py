"""Turns the encoder's outputs into those that a task decodes: calibrated, and combined with the n-gram expert if there is one.

    without an expert    outputs / temperature
    with one             a * outputs + b * expert's logits       (lexicon/combination.py)

The expert reads the whole cleaned text, beyond what the encoder's truncation leaves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.artifact.format import Artifact
from distilora.config.schema import LexiconUse
from distilora.data.examples import Example
from distilora.errors import ArtifactError, ConfigError
from distilora.lexicon.combination import Weights
from distilora.lexicon.format import read_lexicon
from distilora.lexicon.nbsvm import Lexicon

Outputs = NDArray[np.float32]


@dataclass(frozen=True)
class Expert:
    """N-gram expert with the weights that combine it with the encoder."""

    lexicon: Lexicon
    weights: Weights

    def logits(self, examples: Sequence[Example]) -> Outputs:
        """Compute the expert's own logits of examples, [G, C], before any weight."""
        return self.lexicon.logits([" ".join(example.texts) for example in examples])


@dataclass(frozen=True)
class Calibrator:
    """Calibration of a model: its temperature, which is the encoder's alone, and its n-gram expert if it has one."""

    temperature: float
    expert: Expert | None = None

    def __call__(self, outputs: Outputs, examples: Sequence[Example]) -> Outputs:
        """Compute what is decoded, [G, ...], from the encoder's outputs for the examples."""
        if self.expert is None:
            return outputs / self.temperature
        weights = self.expert.weights
        return np.float32(weights.encoder) * outputs + np.float32(weights.expert) * self.expert.logits(examples)

    def views(self, outputs: Outputs, examples: Sequence[Example]) -> Mapping[str, Outputs]:
        """Compute what the encoder alone and the expert alone would give to decode, by name; {} without an expert."""
        if self.expert is None:
            return {}
        return {
            "encoder": outputs / self.temperature,
            "expert": np.float32(self.expert.weights.expert_alone) * self.expert.logits(examples),
        }


def calibrator_of(artifact: Artifact, use: LexiconUse = "auto") -> Calibrator:
    """Read an artifact's calibration; `use` none leaves its n-gram expert out.

    Raises ConfigError for another value of `use`, ArtifactError if the expert is damaged or of a kind this release lacks.
    """
    if use not in ("auto", "none"):
        raise ConfigError(f"lexicon: {use!r} given, auto or none wanted")
    if use == "none" or not artifact.lexicon:
        return Calibrator(artifact.temperature)
    return Calibrator(artifact.temperature, Expert(read_lexicon(artifact.folder), stored_weights(artifact)))


def stored_weights(artifact: Artifact) -> Weights:
    """Read the weights of the two views from artifact.json. Raises ArtifactError if they are damaged."""
    described: dict[str, Any] = artifact.lexicon
    if described.get("kind") != "nbsvm":
        raise ArtifactError(
            f"{artifact.folder}: its n-gram expert is of kind {described.get('kind')!r}, which this release lacks; use the "
            "distilora that wrote it"
        )
    try:
        return Weights(**{name: float(value) for name, value in described["weights"].items()})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ArtifactError(f"{artifact.folder}/artifact.json: damaged (lexicon); copy the model again") from None
