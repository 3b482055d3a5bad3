"""Defines the interface of a task, from records to examples, from hidden states to outputs, from outputs to answers and metrics.

A task is one file with one class, registered with `registry.register`; `tasks/classification.py` is the model to follow. Five
members are abstract. The others have defaults for a task that reads one record as one example and shows only its metrics.
Everything but `head`, `loss` and `explained` must work without torch, so that serving a model does not need it.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from distilora.batching.tokens import Tokenised, tokenise
from distilora.config.measuring import SourceConfig
from distilora.config.schema import DataConfig, RunConfig
from distilora.data.cleaning import Cleaning
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
OutputKind = Literal["label", "first", "tokens", "other"]


class States(Protocol):
    """Last hidden states of B rows, T tokens in all, width D, as `head` reads them (see `encode.States`)."""

    def first(self) -> "Tensor":
        """Return the state of each row's first token, [B, D]."""
        ...

    def mean(self) -> "Tensor":
        """Return the mean state of each row, [B, D]."""
        ...

    def tokens(self) -> "Tensor":
        """Return the state of every token, ragged like `rows.ids`, [T, D]."""
        ...

    def pooled(self) -> "Tensor":
        """Return the states pooled as the Transformers class does before its head, [B, D]."""
        ...

    def head(self, vectors: "Tensor") -> "Tensor":
        """Apply the Transformers class's own head layers to any vectors, in fp32: [N, D] -> [N, outputs]."""
        ...


@dataclass(frozen=True)
class Measurement:
    """Measurement of one split, from which `Task.findings` computes more than the metrics."""

    examples: Examples
    outputs: Outputs  # divided by the temperature
    answers: Sequence[Mapping[str, Any]]  # from `decode`
    metrics: Mapping[str, Any]
    figures: dict[str, Any]  # arrays that came with the metrics; metrics.json gets those that `findings` leaves here
    training_counts: Mapping[str, int] | None  # `Task.counts` of the training examples; None: unknown
    max_mistakes: int  # to list


@dataclass(frozen=True)
class Remeasured:
    """Measurement of saved answers to N examples, to be compared with that of another model's."""

    metrics: Mapping[str, float | None]  # headline first
    resampled: Mapping[
        str, NDArray[np.float64]
    ]  # metric -> its value for each of R resamples, [R]; the same for all models
    quality: NDArray[np.float64]  # [N]; of two answers to an example the one with the higher quality is better
    correct: NDArray[np.bool_] | None  # [N]; None if answers are not correct or wrong


class Task(ABC):
    """Base class of tasks, with five abstract members.

    `settings` are JSON values, stored in the artifact. The constructor takes them as keywords and must accept whatever the
    property returned.
    """

    name: ClassVar[str]
    """Name in the artifact and the registry."""
    transformers_class: ClassVar[str] = "AutoModelForSequenceClassification"
    """Transformers class whose head layers are trained; what is saved loads into it."""
    output_kind: ClassVar[OutputKind] = "other"
    """What outputs [G, ...] are. first: `finish` of what the Transformers class's own head computes of each example's first row;
    tokens: what it computes of every token, as a TokenTask collects it (tasks/token_outputs.py). Both can be exported to ONNX.
    label: as first, and their softmax is the probability of one label among C, [G, C], so that behaviour checks can be run on the
    model."""
    finished: ClassVar[bool] = False
    """Whether `finish` changes anything. Where it does, the Transformers class alone does not give the task's outputs."""
    problem_type: ClassVar[str | None] = None
    """Transformers' `problem_type` in the config of what is saved, by which its pipeline knows how to read the logits."""
    pipeline_tag: ClassVar[str] = "other"
    """Hub's `pipeline_tag` of such a model, for the model card."""
    generates: ClassVar[bool] = False
    """Whether answers are written, token by token, by an encoder-decoder: outputs are token ids, [G, longest]."""
    calibrated: ClassVar[bool] = False
    """Whether outputs are logits that a temperature fitted on validation may divide (`fit_temperature`)."""
    example: ClassVar[str] = '"A slow start, but the last hour is superb."'
    """What `distilora predict RUN` can be tried with, as words on a command line."""
    scored: ClassVar[bool] = True
    """Whether an answer has a `score`, below which a model may abstain."""
    section: ClassVar[str | None] = None
    """Section of a run's settings that this task alone reads, by `configured`."""
    reads_documents: ClassVar[bool] = False
    """Whether a .txt file is one text, not one a line."""
    headlines: ClassVar[tuple[str, ...]] = ()
    """Metrics that the terminal shows; () for all of them."""
    outputs: int
    """Width of the head's last layer."""
    labels: tuple[str, ...] = ()
    """Names of the outputs in order, for the config of the Transformers class."""
    text_column: str | None = None
    """Column that holds the text; None if the task reads something other than a single text."""
    label_column: str | None = None
    """Column of the target, if there is one."""
    settings: Mapping[str, Any]
    generation: Mapping[str, Any] = MappingProxyType({})
    """How text is written, by the names of Transformers' GenerationConfig; for tasks that generate."""

    @property
    def ngram_classes(self) -> int | None:
        """Number C of classes that an n-gram expert can learn, if targets are their numbers and outputs logits [G, C]; else None.

        The expert's logits can then be added to the outputs (`lexicon: nbsvm`).
        """
        return None

    @property
    def phrase(self) -> str:
        """What the task does, in a phrase for the model card."""
        return f"{self.name} into {', '.join(self.labels)}" if self.labels else self.name

    # From data to examples

    @classmethod
    def from_source(cls, config: DataConfig, source: Source) -> Self:
        """Create the task for a source to train on.

        Raises DataError or ConfigError naming the field at fault.
        """
        return cls()

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any], name: str) -> Self | None:
        """Create the task from a foreign model's config.json; return None if the model is for another task.

        Raises ArtifactError for a model of this task that is not supported.
        """
        return None

    @abstractmethod
    def read(self, values: Mapping[str, Any]) -> Example:
        """Read an example from a record's values, by column; `target` is None if the record has none.

        Raises DataError (without the place, which the caller adds) for an invalid value.
        """

    def cleaned(self, example: Example, cleaning: Cleaning) -> Example:
        """Clean the texts of an example; a task whose answers are spans of a text keeps its alignment with the original."""
        return replace(example, texts=tuple(cleaning.clean(text) for text in example.texts))

    def read_text(self, text: str) -> Example:
        """Read an example without a target from a single text. Raises DataError if the task reads something else."""
        if self.text_column is None:
            raise DataError(f"text: task {self.name} does not read a single text; give a table with its columns")
        return self.read({self.text_column: text})

    def records(
        self, source: Source, split: str, setting: str, notes: list[str], training: DataConfig | None = None
    ) -> Iterator[Record]:
        """Stream a split's records in the form that `read` expects.

        Args:
            setting: the setting that selects the split, for errors.
            notes: receives sentences for the report.
            training: the run's data settings, if `source` is the one that the task was created from.
        """
        return source.records(split, setting)

    def aligned_to(
        self, source: Source, split: str, columns: SourceConfig, notes: list[str]
    ) -> tuple["Task", Iterator[Record]]:
        """Adapt the task to the columns of other labelled data; return it with the records of a split.

        `notes` is as in `records`. Raises DataError naming the column at fault.
        """
        return self, self.records(source, split, "data.split", notes)

    def for_prediction(self, columns: Collection[str], text_column: str | None = None) -> "Task":
        """Adapt the task to records without a target. Raises DataError if `columns` lack what it reads."""
        return self

    def declared(self, source: Source) -> bool:
        """Tell whether the source declares all targets, so that one record shows whether a split can be read."""
        return False

    def strata(self, targets: Sequence[Any]) -> list[Hashable]:
        """Return the stratum of each target; parts that are carved out keep the shares of the strata."""
        if not self.labels or not all(isinstance(target, int) for target in targets):
            return [0] * len(targets)
        return [self.labels[target] for target in targets]

    def check(self, examples: Examples) -> None:  # noqa: B027 - most tasks can learn from any examples
        """Raise DataError if nothing can be learnt from the training split."""

    def remarks(self, parts: Sequence[Examples]) -> list[str]:
        """Return warnings, as sentences for the report, about the parts: train, validation and, if carved, heldout."""
        return []

    def counts(self, examples: Examples) -> dict[str, int]:
        """Count the examples of each label, in the task's order; return {} if targets are not classes."""
        return {}

    def target_name(self, target: Any) -> Any:
        """Return the label of a target that is an index into `labels`, else the target itself."""
        return self.labels[target] if self.labels and isinstance(target, int) else target

    # From examples to a trained head

    def tokenise(self, tokenizer: "Tokenizer", examples: Sequence[Example], label: str = "") -> Tokenised:
        """Tokenise examples into rows, one for each text, showing progress under `label`."""
        return tokenise(tokenizer, examples, label)

    def targets(self, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[Any]:
        """Return the targets that `loss` and `metrics` take; by default those of `read`."""
        return [example.target for example in examples]

    def soften(self, targets: Sequence[Any], probabilities: NDArray[np.float32] | None, share: float) -> list[Any]:
        """Mix targets with a teacher's probabilities, [G, C], of which each gets `share`; `loss` takes the result.

        With None for them, targets become probabilities, if they are not yet.

        Raises DataError for a task that has no classes to be probable.
        """
        raise DataError(f"task {self.name}: its targets are not classes, so no teacher's probabilities can be mixed in")

    @abstractmethod
    def head(self, states: States, rows: "Rows") -> "Tensor":
        """Compute the outputs of G examples, [G, ...], from the hidden states of their rows."""

    def finish(self, raw: "Tensor") -> "Tensor":
        """Turn what the Transformers class's head computes of G rows, [G, outputs], into the task's outputs, [G, ...]."""
        return raw

    def configured(self, config: RunConfig) -> "Task":
        """Return the task with what a run's settings say of it. Raises ConfigError for what does not suit it."""
        return self

    def learnt_from(self, train: Examples) -> "Task":
        """Return the task with the constants that it takes from the training examples, such as the mean of a number to predict."""
        return self

    @abstractmethod
    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Compute the loss of each example, [G]; a training step minimises the mean over the update."""

    def fit_temperature(self, outputs: Outputs, targets: Sequence[Any]) -> float:
        """Fit the temperature, by which outputs are divided from then on, on validation outputs; 1 for none."""
        return 1.0

    def decided(self, outputs: Outputs, targets: Sequence[Any]) -> "Task":
        """Return the task with what decoding needs and validation decides, such as thresholds.

        Args:
            outputs: of the validation examples, calibrated.
        """
        return self

    # From outputs to answers

    @abstractmethod
    def decode(self, outputs: Outputs, examples: Sequence[Example], tokenizer: "Tokenizer") -> list[dict[str, Any]]:
        """Decode outputs into one flat answer per example: names to numbers, booleans or text.

        A likeliest answer is called `label`, its probability `score`. A task of output kind 'label' adds `p_LABEL`, the
        probability of each label.
        """

    def agreement(self, ours: Outputs, theirs: Outputs) -> float | None:
        """Compute the share of examples with the same answer; None if outputs are not classes and can only be close."""
        return float(np.mean(ours.argmax(1) == theirs.argmax(1))) if self.labels and ours.ndim == 2 else None

    def hits(self, outputs: Outputs, targets: Sequence[Any]) -> NDArray[np.bool_]:
        """Tell which of N examples with outputs [N, C] are answered correctly, [N]; for tasks with `ngram_classes`."""
        return np.asarray(outputs.argmax(axis=1) == np.asarray(targets, np.int64))

    def explained_answer(self, answer: Mapping[str, Any], label: str | None) -> tuple[str, str]:
        """Return what an explanation of an answer is about, and the answer's key whose number it explains.

        By default a label, the answer's own unless `label` names one, and its probability. Raises DataError for a task whose
        answers hold no such number, or without such a label.
        """
        if "label" not in answer:
            raise DataError(
                f"explain: task {self.name} gives no probability of a label; give a run whose answers have one"
            )
        if label is not None and label not in self.labels:
            raise DataError(f"explain.label: there is no label {label!r}; there are {', '.join(self.labels)}")
        label = label or str(answer["label"])
        return label, f"p_{label}"

    def explained(self, outputs: "Tensor", label: int) -> "Tensor":
        """Compute the quantity that a gradient method explains, [N], from outputs [N, ...] divided by the temperature.

        Raises DataError for a task that has no such quantity.
        """
        raise DataError(
            f"explain.method: task {self.name} has no log-odds of a label to explain by gradients; use --method leave-one-out"
        )

    # From answers to figures

    @abstractmethod
    def metrics(self, outputs: Outputs, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        """Compute the metrics, headline first: name -> {value, low, high}, with 95% intervals if `resamples` > 0.

        An optional key `figures` holds arrays, as JSON values, that `report` may show.
        """

    def headline(self, outputs: Outputs, targets: Sequence[Any]) -> tuple[str, float]:
        """Return name and value of the first metric, shown while training; override it if computing that alone is cheaper."""
        name, metric = next(iter(self.metrics(outputs, targets).items()))
        return name, float(metric["value"])

    def findings(self, measurement: Measurement) -> dict[str, Any]:
        """Compute what metrics.json holds of a split besides its metrics, as JSON values.

        A key `verdict`, if not empty, is a sentence shown before all figures.
        """
        return {}

    def correct(self, target: Any, answer: Mapping[str, Any]) -> bool:
        """Tell whether a saved answer is correct; by default its `label` is compared with the target's name.

        Args:
            target: what `target_name` returned.
            answer: what `decode` returned.

        Raises DataError for a task whose answers have no label.
        """
        if "label" not in answer:
            raise DataError(f"task {self.name} does not tell which answers are correct; give it the member `correct`")
        return bool(answer["label"] == target)

    def remeasure(self, predictions: Sequence[Mapping[str, Any]], resamples: int) -> Remeasured:
        """Measure saved answers, the rows of predictions.parquet, so that two models' can be compared.

        By default the accuracy by `correct`. Raises DataError if the task cannot measure answers.
        """
        from distilora.tasks.metrics.bootstrap import resampled_mean

        correct = np.asarray([self.correct(row["target"], row) for row in predictions], np.bool_)
        quality = correct.astype(np.float64)
        accuracy = {"accuracy": resampled_mean(quality, resamples)}
        return Remeasured({"accuracy": float(quality.mean())}, accuracy, quality, correct)

    def target_text(self, target: Any) -> str:
        """Write what `target_name` returned for a reader."""
        return str(target)

    def answer_text(self, answer: Mapping[str, Any]) -> str:
        """Write a saved answer for a reader: its label and score, or, if it has no label, all that it holds."""
        if "label" in answer:
            return f"{answer['label']} {answer['score']:.2f}" if "score" in answer else str(answer["label"])
        return ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in answer.items()
        )

    def plain_answer(self, temperature: float) -> str | None:
        """Return Python that computes what is decoded from the Transformers class's own `logits`; None where nothing short does."""
        return (
            f"torch.softmax(logits / {temperature!r}, dim=-1)"
            if self.output_kind == "label" and not self.finished
            else None
        )

    @classmethod
    def report(cls, split: Mapping[str, Any]) -> Shown:
        """Return what the report shows of a split besides metrics and slices; `split` is its entry in metrics.json."""
        return Shown()

    @classmethod
    def card(cls, splits: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the paragraphs that the model card shows below its metrics; `splits` are their entries in metrics.json."""
        return []

    @classmethod
    def lines(cls, split: Mapping[str, Any]) -> list[str]:
        """Return the lines that the terminal shows of a split below its metrics."""
        return []
