"""Settings and examples of a training run of a second."""

from support.tiny import tiny_reviews, tiny_tokenizer

from distilora.batching.tokens import tokenise
from distilora.config.schema import TrainingConfig
from distilora.data.examples import Example
from distilora.tasks.classification import Classification
from distilora.training.setup import Labelled

TASK = Classification(("neg", "pos"), "text", "label")


CONFIG = TrainingConfig(
    epochs=2, update_size=16, token_budget=2048, learning_rate=0.01, precision="fp32", device="cpu", validations=2,
    tracker="none",
)  # fmt: skip


def labelled(count: int, seed: int, flipped: bool = False) -> Labelled:
    rows = tiny_reviews(count, seed)
    targets = [("neg", "pos").index(label) ^ flipped for _, label in rows]
    return Labelled(tokenise(tiny_tokenizer(), [Example((text,)) for text, _ in rows]).rows, targets)
