"""Trains a run's network in its folder; a run that is distilled trains two, one after the other."""

import json
from dataclasses import dataclass
from pathlib import Path

from distilora.config.parse import to_tree
from distilora.config.schema import RunConfig, TrainingConfig
from distilora.model.encoders.find import Encoder
from distilora.model.network import Network
from distilora.training.loop import Fitted, fit
from distilora.training.processes import Processes
from distilora.training.setup import Labelled


@dataclass(frozen=True)
class Fitting:
    """What every training of a run has in common."""

    config: RunConfig  # resolved
    encoder: Encoder
    folder: Path  # of the run
    resume: bool
    processes: Processes
    validation: Labelled

    @property
    def budget(self) -> int:
        """Padded tokens per forward pass of prediction."""
        assert self.config.evaluation.token_budget is not None
        return self.config.evaluation.token_budget

    def fit(
        self, network: Network, train: Labelled, training: TrainingConfig, checkpoints: str = "checkpoints"
    ) -> Fitted:
        """Train the network, with checkpoints in that folder of the run's; it then has the best weights."""
        return fit(
            network,
            train,
            self.validation,
            training,
            self.folder,
            budget=self.budget,
            resume=self.resume,
            base=json.dumps([self.encoder.sha256, self.config.encoder.attention, to_tree(self.config.adapter)]),
            processes=self.processes,
            checkpoints=checkpoints,
        )
