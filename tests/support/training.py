"""Settings and examples of a training run of a second."""

import dataclasses
from pathlib import Path

import torch
from support.tiny import tiny_reviews, tiny_tokenizer

from distilora.batching.tokens import tokenise
from distilora.config.schema import AdapterConfig, TrainingConfig
from distilora.data.examples import Example
from distilora.model.build import new_network
from distilora.model.encoders.find import find_encoder
from distilora.model.network import Network
from distilora.tasks.classification import Classification
from distilora.training.loop import Fitted, fit
from distilora.training.setup import Labelled

TASK = Classification(("neg", "pos"), "text", "label")


CONFIG = TrainingConfig(
    epochs=2, update_size=16, token_budget=2048, learning_rate=0.01, precision="fp32", device="cpu", validations=2,
    tracker="none",
)  # fmt: skip
CACHED = dataclasses.replace(CONFIG, epochs=3, validations=3, update_size=16, token_budget=64, cache_gb=0.0)


def labelled(count: int, seed: int, flipped: bool = False) -> Labelled:
    rows = tiny_reviews(count, seed)
    targets = [("neg", "pos").index(label) ^ flipped for _, label in rows]
    return Labelled(tokenise(tiny_tokenizer(), [Example((text,)) for text, _ in rows]).rows, targets)


def build(encoder: Path, precision: str = "fp32", **settings: object) -> Network:
    """Build a network that trains the last two blocks."""
    adapter = AdapterConfig(**({"r": 4, "last_blocks": 2} | settings))
    return new_network(
        find_encoder(str(encoder)), TASK, adapter, precision=precision, device=torch.device("cpu"), dropout=0.0
    )


def run(network: Network, folder: Path, precision: str = "fp32", resume: bool = False, **changes: object) -> Fitted:
    """Train it with a prefix cache that is not kept."""
    config = dataclasses.replace(CACHED, precision=precision, **changes)
    return fit(network, labelled(80, 0), labelled(20, 1), config, folder, budget=128, resume=resume)
