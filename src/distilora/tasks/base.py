"""Tasks: what is read from a record, put on top of the encoder, trained for, answered, measured, shown and explained.

A task is one file with one class, made known by `registry.register`; `tasks/classification.py` is the model to follow. Five
members are abstract. The others have defaults for a task that reads one record as one example and shows its metrics alone.
Everything but `head`, `loss` and `explained` must work without torch, so that a served model needs none.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from distilora.batching.tokens import Tokenised, tokenise
from distilora.config.schema import DataConfig, SourceConfig
from distilora.data.examples import Example, Examples
from distilora.data.sources import Source
from distilora.errors import DataError
from distilora.files.tables import Record
from distilora.tasks.showing import Shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from distilora.batching.rows import Rows

Outputs = NDArray[np.float32]  # of G examples, [G, ...]
OutputKind = Literal["label", "other"]


class States(Protocol):
    """The encoder's last states of B rows, T tokens in all, width D, as `head` sees them (see `encode.States`)."""

    def first(self) -> "Tensor":
        """State of each row's first token, [B, D]."""
        ...

    def mean(self) -> "Tensor":
        """Mean state of each row, [B, D]."""
        ...

    def tokens(self) -> "Tensor":
        """State of every token, ragged like `rows.ids`, [T, D]."""
        ...

    def pooled(self) -> "Tensor":
        """Each row as the Transformers class pools it before its head, [B, D]."""
        ...

    def head(self, vectors: "Tensor") -> "Tensor":
        """The Transformers class's own head layers on any vectors, in fp32: [N, D] -> [N, outputs]."""
        ...


@dataclass(frozen=True)
class Measurement:
    """A measured split, from which a task finds more than its metrics."""

    examples: Examples
    outputs: Outputs  # divided by the temperature
    answers: Sequence[Mapping[str, Any]]  # what `decode` made of them
    metrics: Mapping[str, Any]
    figures: dict[str, Any]  # the arrays that came with the metrics; what a task takes out is not kept with them
    trained: Mapping[str, int] | None  # what `Task.counts` gave for the training examples; None: not known
    mistakes: int  # most to list


class Task(ABC):
    """Five abstract members; a subclass is final. `settings` are JSON values that travel in the artifact.

    The constructor takes `settings` as keywords and must accept all it gave out.
    """

    name: ClassVar[str]
    """Name in the artifact and the registry."""
    transformers_class: ClassVar[str] = "AutoModelForSequenceClassification"
    """Transformers class whose head layers are trained; what is saved loads into it."""
    output_kind: ClassVar[OutputKind] = "other"
    """label: outputs are logits [G, C] of the Transformers class's own head on each example's first row, and their softmax is
    the probability of one label among C. Such a model can be a graph, a pipeline and be explained by gradients."""
    pipeline_tag: ClassVar[str] = "other"
    """What the Hub calls such a model, for the model card."""
    calibrated: ClassVar[bool] = False
    """Whether outputs are logits that a temperature fitted on validation may divide (`fit_temperature`)."""
    outputs: int
    """Width of the head's last layer."""
    labels: tuple[str, ...] = ()
    """Names of the outputs in order; for the config of the Transformers class."""
    text_column: str | None = None
    """Column that a text given by itself stands for; None where the task reads something else than one text."""
    label_column: str | None = None
    """Column of the target, where there is one."""
    settings: Mapping[str, Any]

    # From data to examples

    @classmethod
    def from_source(cls, config: DataConfig, source: Source) -> Self:
        """Set the task up for the data it is to be trained on.

        Raises DataError or ConfigError naming the field at fault.
        """
        return cls()

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any], name: str) -> Self | None:
        """Set the task up for a foreign model, by its config.json; None if the model is not of this task.

        Raises ArtifactError for a model of this task that cannot be used.
        """
        return None

    @abstractmethod
    def read(self, values: Mapping[str, Any]) -> Example:
        """Make an example of a record's values, by column; `target` is None where the record has none.

        Raises DataError (without the place, which the caller adds) if a value cannot be used.
        """

    def read_text(self, text: str) -> Example:
        """Make an example, without a target, of a text given by itself. Raises DataError if it cannot be one."""
        if self.text_column is None:
            raise DataError(f"text: task {self.name} does not read a text by itself; answer a table of its columns")
        return self.read({self.text_column: text})

    def records(
        self, source: Source, split: str, setting: str, notes: list[str], training: DataConfig | None = None
    ) -> Iterator[Record]:
        """Stream a split's records as `read` wants them.

        Args:
            setting: names the split in errors.
            notes: gets a sentence for each thing that a reader of the report should know.
            training: settings of the run, where `source` is the one that the task was set up for.
        """
        return source.records(split, setting)

    def aligned_to(
        self, source: Source, split: str, columns: SourceConfig, notes: list[str]
    ) -> tuple["Task", Iterator[Record]]:
        """Set the task to the columns of other labelled data; return it with the records of a split of these.

        Raises DataError naming the column at fault; `notes` as in `records`.
        """
        return self, self.records(source, split, "data.split", notes)

    def for_prediction(self, columns: Collection[str], text_column: str | None = None) -> "Task":
        """Set the task to read records of these columns, which have no target. Raises DataError naming the column."""
        return self

    def declared(self, source: Source) -> bool:
        """Whether the source declares all targets, so that one record tells whether a split can be read."""
        return False

    def strata(self, targets: Sequence[Any]) -> list[Hashable]:
        """Give the stratum of each target: parts that are carved out keep the shares of these."""
        if not self.labels or not all(isinstance(target, int) for target in targets):
            return [0] * len(targets)
        return [self.labels[target] for target in targets]

    def check(self, examples: Examples) -> None:  # noqa: B027 - most tasks learn from whatever there is
        """Raise DataError if nothing can be learnt from the training split."""

    def remarks(self, parts: Sequence[Examples]) -> list[str]:
        """Warn of what the parts (train, validation, and held-out examples, if any) lack: sentences for the report."""
        return []

    def counts(self, examples: Examples) -> dict[str, int]:
        """Count examples by label, in the task's order; empty for a task whose targets are no classes."""
        return {}

    def target_name(self, target: Any) -> Any:
        """Name a target: the label of one that is an index into `labels`, else the target itself."""
        return self.labels[target] if self.labels and isinstance(target, int) else target

    # From examples to a trained head

    def tokenise(self, tokenizer: "Tokenizer", examples: Sequence[Example], label: str = "") -> Tokenised:
        """Make rows of examples, one for each text; shows progress under `label`."""
        return tokenise(tokenizer, examples, label)

    def targets(self, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[Any]:
        """Give what `loss` and `metrics` take as the target of each example: what `read` gave."""
        return [example.target for example in examples]

    @abstractmethod
    def head(self, states: States, rows: "Rows") -> "Tensor":
        """Compute outputs of G examples, [G, ...], from the encoder's states of their rows."""

    @abstractmethod
    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Compute the loss of each example, [G]: a training step takes their mean over the update."""

    def fit_temperature(self, outputs: Outputs, targets: Sequence[Any]) -> float:
        """Fit what outputs are divided by from now on, on validation; 1 leaves them as they are."""
        return 1.0

    # From outputs to answers

    @abstractmethod
    def decode(self, outputs: Outputs, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[dict[str, Any]]:
        """Give one answer for each example, flat: names to numbers, booleans or text. `label` and `score`, if there.

        A task of output kind 'label' also gives `p_LABEL`, the probability of each label.
        """

    def agreement(self, ours: Outputs, theirs: Outputs) -> float | None:
        """Give the share of examples whose answer is the same; None for a task whose outputs only come near each other."""
        return float(np.mean(ours.argmax(1) == theirs.argmax(1))) if self.labels and ours.ndim == 2 else None

    def explained(self, outputs: "Tensor", label: int) -> "Tensor":
        """Compute what a gradient method explains, [N], from outputs [N, ...] divided by the temperature.

        Raises DataError for a task that has no such number.
        """
        raise DataError(
            f"explain.method: task {self.name} has no log-odds of a label to explain by gradients; use --method leave-one-out"
        )

    # From answers to figures

    @abstractmethod
    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Measure: name -> {value, low, high} (95% interval where `resamples` > 0), the headline first.

        An optional key `figures` holds arrays, as JSON values, that `report` may show.
        """

    def headline(self, outputs: Outputs, targets: Sequence[Any]) -> tuple[str, float]:
        """Give name and value of the first metric, shown while training; override it where that alone is cheaper."""
        name, measured = next(iter(self.metrics(outputs, targets).items()))
        return name, float(measured["value"])

    def findings(self, measurement: Measurement) -> dict[str, Any]:
        """Find what metrics.json holds of a split beside its metrics, as JSON values.

        A key `verdict`, if it is not empty, is a sentence that every reader sees first.
        """
        return {}

    @classmethod
    def report(cls, split: Mapping[str, Any]) -> Shown:
        """Choose what the report shows of a split beside its metrics and slices; `split` is what metrics.json holds."""
        return Shown()

    @classmethod
    def lines(cls, split: Mapping[str, Any]) -> list[str]:
        """Choose what the terminal shows of a split below its metrics."""
        return []
