"""A dry run, which stops before the first update: data, training, disk space and estimated time of a run.

The data are read and split and the network is built as in the run itself, so the counts are those of the run; the time is
estimated from passes over some of the training texts. Nothing is written.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.batching.batches import plan_batches
from distilora.config.schema import RunConfig, TrainingConfig
from distilora.data.examples import Examples
from distilora.errors import ConfigError
from distilora.model.adapters.methods import METHODS
from distilora.model.network import run_network
from distilora.model.precision import computing_in
from distilora.progress import plural
from distilora.runs.distil import student_config
from distilora.runs.preflight import COPIES, Checked
from distilora.runs.run import Run
from distilora.tasks.base import Task

MEASURED_S = 4.0  # seconds of passes to measure a rate on; exceeded by at most one micro-batch


def dry_run(config: RunConfig, checked: Checked, *, overwrite: bool = False, resume: bool = False) -> dict[str, str]:
    """Describe what a run would do, in lines for people: name -> text. `checked` comes from `preflight.check_run`.

    Raises what `train` raises before it writes, and ConfigError under torchrun or accelerate launch.
    """
    with Run(config, overwrite=overwrite, resume=resume, checked=checked) as run:
        if run.processes.count > 1:
            raise ConfigError("--dry-run: runs in one process; start it without torchrun or accelerate launch")
        run.read()
        run.build()
        return {**_data(run), **_training(run), "disk": _disk(run), "time": _time(run)}


def _data(run: Run) -> dict[str, str]:
    parts, lines = run.parts, {}
    lines["data"] = parts.summary["source"]
    lines["train"] = _counted(parts.train, run.task)
    lines["validation"] = _counted(parts.validation, run.task)
    lines |= _texts(run)
    split = parts.summary["test_split"]
    if parts.read_test is None:
        lines["test"] = "none"
    elif split == "heldout":
        lines["test"] = f"heldout, {_counted(parts.read_test(), run.task)}"
    else:
        lines["test"] = f"{split} of {run.config.data.test_path or parts.summary['source']}; read at the end"
    lengths, truncated = run.train_tokens.rows.group_lengths, int(run.train_tokens.truncated.sum())
    median, high, longest = (int(value) for value in np.quantile(lengths, [0.5, 0.95, 1.0], method="nearest"))
    lines["tokens per text"] = (
        f"median {median:,}, 95% up to {high:,}, longest {longest:,}; {truncated:,} texts are truncated"
    )
    return lines


def _texts(run: Run) -> dict[str, str]:
    """Describe the unlabelled texts, if there are any."""
    if run.unlabelled is None:
        return {}
    counts = run.unlabelled.counts
    return {
        "unlabelled": f"{counts['used']:,} of {plural(counts['read'], 'text')} of {counts['source']}, {counts['split']}"
    }


def _updates(texts: int, training: TrainingConfig) -> str:
    updates = -(-texts // training.update_size) * training.epochs
    return (
        f"{updates:,} of {plural(training.update_size, 'text')}, in {plural(training.epochs, 'epoch')}; "
        f"{plural(training.validations, 'validation')}"
    )


def _counted(examples: Examples, task: Task) -> str:
    classes = ", ".join(f"{label} {count:,}" for label, count in task.counts(examples).items())
    return f"{len(examples):,} texts" + (f": {classes}" if classes else "")


def _training(run: Run) -> dict[str, str]:
    training, counts = run.config.training, run.parameters
    labels = len(run.learnt)
    updates = {"updates": _updates(labels, training)}
    if run.unlabelled is not None:
        student = _updates(labels + run.unlabelled.rows.groups, student_config(run.config))
        updates = {
            "teacher's updates": f"{_updates(labels, training)}, on the labels",
            "student's updates": f"{student}, on labels and soft labels",
        }
    return {
        "encoder": f"{run.encoder.name} ({run.encoder.config['model_type']}, {run.encoder.blocks} blocks)",
        "method": f"{METHODS[run.config.adapter.method].phrase}, {counts['trained']:,} of {counts['total']:,} parameters",
        **updates,
        "device": f"{training.device}, {training.precision}",
    }


def _disk(run: Run) -> str:
    training, network = run.config.training, run.network
    network.train()
    tokens = 0
    if network.computes_blocks and network.cut:
        tokens += len(run.train_tokens.rows.ids) if training.epochs > 1 else 0
        tokens += len(run.validation_tokens.rows.ids) if training.validations > 1 else 0
    cache = tokens * run.encoder.width * (2 if training.precision == "bf16" else 4)
    text = f"{4 * COPIES * run.parameters['trained'] / 1e6:,.1f} MB for checkpoints and model while it trains"
    return text + (f", {cache / 1e6:,.1f} MB for the frozen-prefix cache if there is room" if cache else "")


def _time(run: Run) -> str:
    """Estimate the time of training and validations from measured rates; later stages are not included."""
    training, rows = run.config.training, run.train_tokens.rows
    assert training.token_budget is not None  # resolved
    rng = np.random.default_rng(0)
    batches = [batch for update in plan_batches(rows.group_lengths, training.token_budget, training.update_size, training.seed)
               for batch in update]  # fmt: skip
    shuffled = [batches[i] for i in rng.permutation(len(batches))]
    updates, updating = _rate(shuffled, rows.group_lengths, lambda batch: _update(run, batch))
    run.network.eval()
    predictions, validating = _rate(shuffled, rows.group_lengths, lambda batch: _predict(run, batch))
    seconds = len(rows.ids) * training.epochs / updating
    seconds += len(run.validation_tokens.rows.ids) * training.validations / validating
    if run.unlabelled is not None:  # labelled by the teacher, then learnt by the student
        unlabelled = len(run.unlabelled.tokens.rows.ids)
        seconds += (len(rows.ids) + len(run.unlabelled.rows.ids)) * student_config(run.config).epochs / updating
        seconds += (unlabelled + len(run.validation_tokens.rows.ids) * training.validations) / validating
    caches = run.network.computes_blocks and run.network.cut and training.epochs > 1
    text = f"{'at most ' if caches else ''}about {_clock(seconds)} of training and validation"
    return (
        f"{text}, estimated from {updates + predictions} micro-batches ({updating:,.0f} tokens/s in updates, {validating:,.0f} in "
        "validation)"
        + ("; the frozen-prefix cache shortens it" if caches else "")
        + "; saving, test and report are not included"
    )


def _rate(
    batches: list[NDArray[np.int64]], lengths: NDArray[np.int64], compute: Callable[[NDArray[np.int64]], None]
) -> tuple[int, float]:
    """Compute micro-batches for MEASURED_S; return their number and the tokens per second, the first not timed."""
    compute(batches[0])
    tokens = count = 0
    started = time.monotonic()
    for batch in _cycle(batches):
        compute(batch)
        tokens += int(lengths[batch].sum())
        count += 1
        elapsed = time.monotonic() - started
        if elapsed > MEASURED_S or count >= max(len(batches), 3):
            break
    return count, tokens / max(elapsed, 1e-9)


def _cycle(batches: list[Any]) -> Iterable[Any]:
    while True:
        yield from batches


def _update(run: Run, batch: NDArray[np.int64]) -> None:
    network = run.network
    network.train()
    targets = run.task.targets([run.learnt.items[i] for i in batch], run.tokenizer)
    with computing_in(run.config.training.precision, network.device):
        outputs = network.training_outputs(run.train_tokens.rows.take(batch), targets)
    network.task.loss(outputs.float(), targets).mean().backward()  # type: ignore[no-untyped-call]
    for parameter in network.trained().values():
        parameter.grad = None


def _predict(run: Run, batch: NDArray[np.int64]) -> None:
    run_network(run.network, run.train_tokens.rows.take(batch), run.config.training.precision)


def _clock(seconds: float) -> str:
    return f"{seconds / 60:,.1f} minutes" if seconds >= 90 else plural(round(seconds), "second")
