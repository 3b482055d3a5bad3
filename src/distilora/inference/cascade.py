"""A cascade: texts of which the n-gram expert is sure are answered by it alone, and the encoder sees the rest.

    text -> expert -> score >= threshold -> its answer
                   -> else               -> encoder and expert combined -> answer

The threshold is the model's own (tasks/cascade.py), chosen by the scores that it gave held-out texts in the same precision.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distilora.artifact.format import Artifact
from distilora.artifact.scores import read_scores
from distilora.config.schema import LexiconUse
from distilora.data.examples import Example
from distilora.errors import ConfigError
from distilora.inference.abstention import scores_in
from distilora.inference.calibrate import Expert
from distilora.tasks.base import Task
from distilora.tasks.cascade import CascadeThreshold, choose_cascade

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Answer = dict[str, Any]


class Cascade:
    """The expert's part of a cascade, and how many texts it answered."""

    def __init__(self, expert: Expert, task: Task, tokenizer: "Tokenizer", threshold: CascadeThreshold) -> None:
        self.threshold = threshold
        self._expert, self._task, self._tokenizer = expert, task, tokenizer
        self.alone = self.texts = 0

    def judge(self, examples: Sequence[Example]) -> list[Answer | None]:
        """Return the expert's answers to cleaned examples, None for those it is not sure of."""
        if not examples:
            return []
        outputs = np.float32(self._expert.weights.expert_alone) * self._expert.logits(examples)
        answers = self._task.decode(outputs, examples, self._tokenizer)
        judged = [answer if answer["score"] >= self.threshold.score else None for answer in answers]
        self.alone += sum(answer is not None for answer in judged)
        self.texts += len(judged)
        return judged

    def sentence(self) -> str:
        """Say which share of the texts the expert has answered."""
        return f"the n-gram expert answered {self.alone / max(self.texts, 1):.1%} of {self.texts:,} texts alone"


def check_cascade(artifact: Artifact, lexicon: LexiconUse, abstain_error: float | None) -> None:
    """Raise ConfigError, before anything heavy is loaded, if a model cannot answer by a cascade so."""
    if not artifact.lexicon:
        raise ConfigError(
            f"cascade: given, but {artifact.folder} has no n-gram expert; train with --lexicon nbsvm, or drop it"
        )
    if not read_scores(artifact):
        raise ConfigError(
            f"cascade: {artifact.folder} holds no scores of held-out texts to choose a threshold by; train or export it with this "
            "release"
        )
    if lexicon == "none":
        raise ConfigError("cascade: given together with lexicon none, which leaves the expert out; drop one of them")
    if abstain_error is not None:
        raise ConfigError(
            "cascade: given together with abstain_error, whose threshold holds for the whole model's answers; drop one of them, "
            "or give a threshold with abstain_below"
        )


def cascade_of(artifact: Artifact, precision: str, expert: Expert, task: Task, tokenizer: "Tokenizer") -> Cascade:
    """Make the cascade of a model. Raises ConfigError where no threshold keeps the loss."""
    return Cascade(expert, task, tokenizer, choose_cascade(scores_in(artifact, precision, "cascade")))
