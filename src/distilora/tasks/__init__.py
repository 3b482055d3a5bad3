"""Tasks: what is read from a record, put on top of the encoder, trained for, answered and measured.

A task has five members and is plugged in by `register`; `tasks/classification.py` is the model to follow. `read`,
`decode` and `metrics` must not import torch, so that a served model needs none.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from distilora.errors import ArtifactError
from distilora.examples import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from distilora.encode import States
    from distilora.rows import Rows


class Task(ABC):
    """Five members; a subclass is final. `settings` are JSON values that travel in the artifact.

    The constructor takes `settings` as keywords and must accept all it gave out.
    """

    name: ClassVar[str]
    """Name in the artifact and the registry."""
    transformers_class: ClassVar[str] = "AutoModelForSequenceClassification"
    """Transformers class whose head layers are trained; what is saved loads into it."""
    calibrated: ClassVar[bool] = False
    """Whether outputs are logits that a temperature fitted on validation may divide."""
    outputs: int
    """Width of the head's last layer."""
    labels: tuple[str, ...] = ()
    """Names of the outputs in order; for the config of the Transformers class."""
    settings: Mapping[str, Any]

    @abstractmethod
    def read(self, values: Mapping[str, Any]) -> Example:
        """One example from a record's values, by column; `target` is None where the record has none.

        Raises DataError (without the place, which the caller adds) if a value cannot be used.
        """

    @abstractmethod
    def head(self, states: "States", rows: "Rows") -> "Tensor":
        """Outputs of G examples, [G, ...], from the encoder's states of their rows."""

    @abstractmethod
    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Loss of each example, [G]: a training step takes their mean over the update."""

    @abstractmethod
    def decode(self, outputs: "NDArray[np.float32]", examples: Sequence[Example]) -> list[dict[str, Any]]:
        """One answer for each example, flat: names to numbers, booleans or text. `label` and `score`, if there."""

    @abstractmethod
    def metrics(self, outputs: "NDArray[np.float32]", targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """What is measured: name -> {value, low, high} (95% interval where `resamples` > 0), the headline first.

        An optional key `figures` holds arrays for the report: per_class, confusion, reliability, roc, confidence.
        """

    def headline(self, outputs: "NDArray[np.float32]", targets: Sequence[Any]) -> tuple[str, float]:
        """Name and value of the first metric, shown while training; override it where that alone is cheaper."""
        name, found = next(iter(self.metrics(outputs, targets).items()))
        return name, float(found["value"])


_REGISTRY: dict[str, type[Task]] = {}


def register(task: type[Task]) -> type[Task]:
    """Makes a task known by its name, so that an artifact of it can be loaded. Usable as a decorator."""
    _REGISTRY[task.name] = task
    return task


def restore(name: str, settings: Mapping[str, Any]) -> Task:
    """The task an artifact names. Raises ArtifactError if no such task is registered."""
    import distilora.tasks.classification  # noqa: F401 - registers itself

    if name not in _REGISTRY:
        raise ArtifactError(
            f"task: no task called {name!r} is registered (there is {', '.join(_REGISTRY)}); import the module that "
            "registers it first"
        )
    return _REGISTRY[name](**settings)
