"""Continued pre-training: before a run looks at a label, its encoder learns to tell replaced words from original ones.

The texts are the run's own, labelled and unlabelled; none of validation, held-out or test. What the method trains inside the
encoder is adapted and then goes on to learn the labels, so that the model is as large as without. The head is dropped.
`RUN/adaptation/` has the checkpoints until the run is finished.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from distilora.batching.corruption import Bigrams, corrupt, stretches
from distilora.batching.rows import Rows, joined
from distilora.config.schema import RunConfig, TrainingConfig
from distilora.errors import ConfigError
from distilora.model.adapters.methods import METHODS
from distilora.model.build import new_network
from distilora.model.encoders.families import in_head
from distilora.model.network import Network
from distilora.progress import say
from distilora.runs.fitting import Fitting
from distilora.tasks.replaced_tokens import ReplacedTokens, detection_targets
from distilora.training.setup import Labelled

FOLDER = "adaptation"  # in the run's folder, while it trains
LENGTH = 128  # tokens of a stretch of text
HELD_OUT = 0.02  # share of the stretches that the weights are chosen on


@dataclass(frozen=True)
class Adapted:
    """Weights inside the encoder after adaptation, by name, and what was measured, as JSON values."""

    weights: dict[str, torch.Tensor]
    summary: dict[str, Any]


def check_adaptation(config: RunConfig) -> None:
    """Raise ConfigError if the encoder is to be adapted by a method that trains nothing inside it."""
    if config.adaptation.tokens and not METHODS[config.adapter.method].in_encoder:
        raise ConfigError(
            f"adaptation.tokens: {config.adaptation.tokens:,} given, but method {config.adapter.method} trains nothing inside the "
            "encoder; give 0, or another adapter.method"
        )


def adaptation_config(config: RunConfig) -> TrainingConfig:
    """Return the settings that the encoder is adapted with."""
    training = config.training
    assert training.learning_rate is not None  # resolved
    rate = config.adaptation.rate * training.learning_rate
    return replace(
        training, epochs=1, update_size=32, validations=1, patience=None, tracker="none", expert_targets=0.0,
        learning_rate=rate, head_learning_rate=4 * rate,
    )  # fmt: skip


def adapt(fitting: Fitting, network: Network, texts: Sequence[Rows], tokenizer: Tokenizer) -> Adapted:
    """Adapt the weights that `network` trains inside its encoder to the texts; the network then has them.

    Args:
        texts: rows of the run's texts, validation excepted.
        tokenizer: tells which tokens are special.
    """
    config, tokens = fitting.config, fitting.config.adaptation.tokens
    length = min(LENGTH, config.data.max_length)
    rng = np.random.default_rng([config.training.seed, 0xADA])
    special = np.asarray(
        [number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special], np.int32
    )
    corpus = joined(texts)
    rows, replaced = corrupt(
        stretches(corpus, special, length, tokens, rng),
        Bigrams(corpus, special),
        special,
        config.adaptation.replaced,
        rng,
    )
    count = max(round(HELD_OUT * len(rows)), 1)
    targets = detection_targets(rows, replaced, length)
    order = np.arange(len(rows))
    parts = [Labelled(rows.take(part), [targets[i] for i in part]) for part in (order[:-count], order[-count:])]
    say(
        f"adaptation: {len(rows.ids):,} tokens in {len(rows):,} stretches of text, {replaced.mean():.1%} of them replaced"
    )
    detector = new_network(
        fitting.encoder, ReplacedTokens(length), config.adapter, precision=config.training.precision, device=network.device,
        attention=config.encoder.attention, dropout=config.training.dropout, seed=config.training.seed,
    )  # fmt: skip
    fitted = replace(fitting, validation=parts[1]).fit(detector, parts[0], adaptation_config(config), FOLDER)
    weights = {
        name: parameter.detach().clone()
        for name, parameter in detector.trained().items()
        if not in_head(name, detector.architecture)
    }
    restore(weights, network)
    metrics = detector.task.metrics(fitted.outputs, parts[1].targets)
    summary = {
        "tokens": len(rows.ids),
        "texts": corpus.groups,
        "seconds": round(fitted.state.seconds, 1),
        **{name: metric["value"] for name, metric in metrics.items()},
    }
    return Adapted(weights, summary)


def restore(weights: Mapping[str, torch.Tensor], network: Network) -> None:
    """Copy adapted weights into a network that trains the same ones."""
    trained = network.trained()
    with torch.no_grad():
        for name, weight in weights.items():
            trained[name].copy_(weight)
