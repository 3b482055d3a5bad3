"""Cross-view distillation: n-gram expert and encoder label unlabelled texts together, and the encoder learns from that.

    1  teacher: the encoder, trained on the labels; its logits and the expert's, combined by weights fitted on validation
    2  soft labels: softmax(combined) of every unlabelled text
    3  student: the teacher's encoder, trained on labels and soft labels together

The two views read a text differently, so each is surest where the other is not, and what they say together is right more often
than either. The student is an ordinary adapter without an n-gram part. Labelled texts keep their labels: the teacher has
learnt them, and would only repeat them. Soft targets are those of distillation at temperature 1 (Hinton et al. 2015); two
views that teach each other are the idea of co-training (Blum & Mitchell 1998).

`RUN/teacher/` holds checkpoints, and then the soft labels, until the run is finished: a resumed run repeats neither.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from distilora.batching.rows import Rows, joined
from distilora.batching.tokens import Tokenised
from distilora.config.schema import RunConfig, TrainingConfig
from distilora.data.examples import Examples
from distilora.data.fragments import Fragments, cut_fragments
from distilora.data.parts import Parts
from distilora.data.unlabelled import read_unlabelled
from distilora.files.atomic import replacing_folder
from distilora.inference.backends.torch_backend import TorchBackend
from distilora.inference.calibrate import Calibrator, Expert
from distilora.inference.lanes import run_rows
from distilora.model.network import Network
from distilora.progress import say
from distilora.runs.expert import FittedExpert
from distilora.runs.fitting import Fitting
from distilora.tasks.base import Task
from distilora.tasks.metrics.paired import mcnemar, paired_difference
from distilora.training.loop import Fitted
from distilora.training.setup import Labelled

FOLDER = "teacher"  # in the run's folder, while it trains
LABELS = "labels"  # in that
Outputs = NDArray[np.float32]


@dataclass(frozen=True)
class Unlabelled:
    """Unlabelled texts with their rows and the counts of what was removed."""

    examples: Examples
    tokens: Tokenised
    fragments: Fragments
    fragment_tokens: Tokenised
    counts: Mapping[str, Any]

    @cached_property
    def rows(self) -> Rows:
        """What the student reads: rows of the texts, then of the fragments."""
        return joined([self.tokens.rows, self.fragment_tokens.rows])


@dataclass(frozen=True)
class Teacher:
    """Teacher of a run: the encoder's weights after the labels alone, and what it says of validation and unlabelled texts."""

    weights: dict[str, torch.Tensor]  # trainable, by name
    validation: Outputs  # the encoder's outputs, [G, C]
    probabilities: Outputs  # of the unlabelled texts, [U, C]
    calibrate: Calibrator  # temperature of its encoder, weights of the two views

    def outputs(self, network: Network, tokens: Tokenised, precision: Any, budget: int, label: str) -> Outputs:
        """Compute the outputs of the teacher's encoder, [G, C], with `network`, whose weights are put back."""
        trained = network.trained()
        current = {name: parameter.detach().clone() for name, parameter in trained.items()}
        _copy(self.weights, trained)
        try:
            return run_rows(tokens.rows, TorchBackend(network, precision, budget), label=label, lanes=True)
        finally:
            _copy(current, trained)


def student_config(config: RunConfig) -> TrainingConfig:
    """Return the settings that the student is trained with."""
    distillation, training = config.distillation, config.training
    assert training.learning_rate is not None  # resolved
    assert training.head_learning_rate is not None
    share = distillation.rate
    return replace(
        training,
        epochs=distillation.epochs,
        learning_rate=share * training.learning_rate,
        head_learning_rate=share * training.head_learning_rate,
    )


def label_texts(
    network: Network, expert: FittedExpert, validation: Outputs, targets: Sequence[int], unlabelled: Unlabelled,
    precision: Any, budget: int,
) -> Teacher:  # fmt: skip
    """Combine the trained encoder with the expert, and label the unlabelled texts.

    Args:
        network: the encoder after training on the labels.
        validation: its outputs for the validation texts, [G, C], whose class numbers are `targets`.
    """
    combined: Expert = expert.combined(validation, targets)
    calibrate = Calibrator(network.task.fit_temperature(validation, targets), combined)
    backend = TorchBackend(network, precision, budget)
    outputs = run_rows(unlabelled.tokens.rows, backend, label="labelling unlabelled texts", lanes=True)
    logits = calibrate(outputs, unlabelled.examples.items).astype(np.float64)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    sure = float(np.mean(probabilities.max(axis=1) >= 0.9))
    say(f"teacher: {len(probabilities):,} unlabelled texts have soft labels, {sure:.0%} of them surer than 90%")
    weights = {name: parameter.detach().cpu().clone().contiguous() for name, parameter in network.trained().items()}
    return Teacher(weights, validation, probabilities, calibrate)


def read_texts(config: RunConfig, task: Task, parts: Parts, tokenizer: Tokenizer) -> Unlabelled:
    """Read the unlabelled texts that are no copies of the run's own, or the sample of them that is asked for."""
    examples, counts = read_unlabelled(config.data, task, parts)
    most = config.distillation.texts
    if most is not None and most < len(examples):
        chosen = np.random.default_rng([config.data.seed, 0x0D15]).permutation(len(examples))[:most]
        examples = examples.take(np.sort(chosen))
    tokens = task.tokenise(tokenizer, examples.items, "tokenising unlabelled")
    fragments = cut_fragments(examples, config.data.fragments, config.data.seed)
    fragment_tokens = task.tokenise(tokenizer, fragments.examples.items, "tokenising fragments")
    counts = {**counts, "used": len(examples), "fragments": len(fragments.examples)}
    return Unlabelled(examples, tokens, fragments, fragment_tokens, counts)


def teach(fitting: Fitting, network: Network, expert: FittedExpert, train: Labelled, unlabelled: Unlabelled) -> Teacher:
    """Train the teacher on the labels and let it label the unlabelled texts, or read what it said before a stop."""
    folder, config = fitting.folder / FOLDER, fitting.config
    identity = identity_of(config, fitting.encoder.sha256, train.rows, unlabelled)
    teacher = load_teacher(folder, identity, expert) if fitting.resume else None
    if teacher is not None:
        return teacher
    say("teacher: training on the labels")
    fitted = fitting.fit(network, train, replace(config.training, tracker="none"), FOLDER)
    precision, targets = config.training.precision, fitting.validation.targets
    teacher = label_texts(network, expert, fitted.outputs, targets, unlabelled, precision, fitting.budget)
    if fitting.processes.first:
        save_teacher(folder, teacher, identity)
    return teacher


def learn(fitting: Fitting, network: Network, teacher: Teacher, train: Labelled, unlabelled: Unlabelled) -> Fitted:
    """Train the student, which has the teacher's weights unless `distillation.start` says otherwise, on labels and soft labels."""
    if fitting.config.distillation.start == "teacher":
        _copy(teacher.weights, network.trained())
    rows = joined([train.rows, unlabelled.rows])
    soft = [*teacher.probabilities, *teacher.probabilities[unlabelled.fragments.source]]
    say(f"student: training on {train.rows.groups:,} labels and {len(soft):,} soft labels")
    targets = [*network.task.soften(train.targets, None, 0.0), *soft]
    return fitting.fit(network, Labelled(rows, targets), student_config(fitting.config))


def save_teacher(folder: Path, teacher: Teacher, identity: str) -> None:
    """Write the teacher's weights and labels to `folder`/LABELS; `identity` tells whether they are those of a resumed run."""
    assert teacher.calibrate.expert is not None
    with replacing_folder(folder / LABELS) as temporary:
        save_file(teacher.weights, temporary / "weights.safetensors")
        np.savez(temporary / "outputs.npz", validation=teacher.validation, probabilities=teacher.probabilities)
        described = {
            "identity": identity,
            "temperature": teacher.calibrate.temperature,
            "weights": vars(teacher.calibrate.expert.weights),
        }
        (temporary / "teacher.json").write_text(json.dumps(described), "utf-8")


def load_teacher(folder: Path, identity: str, expert: FittedExpert) -> Teacher | None:
    """Read what `save_teacher` wrote; None if there is nothing, or that of other texts or settings."""
    from distilora.lexicon.combination import Weights

    labels = folder / LABELS
    try:
        described = json.loads((labels / "teacher.json").read_text("utf-8"))
        if described["identity"] != identity:
            return None
        with np.load(labels / "outputs.npz", allow_pickle=False) as arrays:
            validation, probabilities = arrays["validation"], arrays["probabilities"]
        weights = load_file(labels / "weights.safetensors")
    except (OSError, ValueError, KeyError):
        return None
    say(f"teacher: found {len(probabilities):,} soft labels of before")
    combined = Expert(expert.lexicon, Weights(**described["weights"]))
    return Teacher(weights, validation, probabilities, Calibrator(described["temperature"], combined))


def identity_of(config: RunConfig, encoder: str, labelled: Rows, unlabelled: Unlabelled) -> str:
    """Return the SHA-256 of what the teacher depends on: settings, encoder, labelled and unlabelled rows."""
    digest = hashlib.sha256(
        json.dumps([encoder, repr(config.data), repr(config.training), repr(config.adapter)]).encode()
    )
    for rows in (labelled, unlabelled.rows):
        digest.update(np.ascontiguousarray(rows.ids).data)
        digest.update(np.ascontiguousarray(rows.offsets).data)
    return digest.hexdigest()


def measure_steps(
    task: Task, teacher: Teacher, of_teacher: Outputs, student: Calibrator, of_student: Outputs, examples: Examples,
    targets: Sequence[int], resamples: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Measure every step of the distillation on a split; `gain` is the paired difference to the step before.

    Args:
        of_teacher: outputs of the teacher's encoder, [G, C].
        student: calibration of the student.
        of_student: outputs of the student's encoder, [G, C].
    """
    expert = teacher.calibrate.expert
    assert expert is not None
    before = teacher.calibrate.views(of_teacher, examples.items)
    outputs = {
        "expert": before["expert"],
        "teacher_encoder": before["encoder"],
        "teacher": teacher.calibrate(of_teacher, examples.items),
        "encoder": of_student / student.temperature,
    }
    if student.expert is not None:
        outputs["combined"] = student(of_student, examples.items)
    steps: list[dict[str, Any]] = []
    last: NDArray[np.bool_] | None = None
    for name, of_step in outputs.items():
        metric, value = task.headline(of_step, targets)
        correct = task.hits(of_step, targets)
        row: dict[str, Any] = {"step": name, "metric": metric, "value": value}
        if last is not None:
            row["gain"] = {**paired_difference(correct, last, resamples), "mcnemar": mcnemar(correct, last)}
        steps.append(row)
        last = correct
    return steps


def _copy(weights: Mapping[str, torch.Tensor], trained: Mapping[str, torch.nn.Parameter]) -> None:
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(weights[name])
