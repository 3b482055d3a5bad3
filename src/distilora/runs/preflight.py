"""Checks before a run begins: every error that can be found without torch and without the encoder's weights.

task -> output -> tracker, method -> encoder, lengths, layers -> columns and labels of every split -> disk space. The test
split is only checked for records that can be read and labels that the model has; nothing of it is kept.
"""

import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from distilora.config.schema import CARVED, DataConfig, EncoderConfig, RunConfig, TrainingConfig
from distilora.data.cleaning import cleaning
from distilora.data.examples import group_and_order
from distilora.data.parts import find_test, settle
from distilora.data.sources import Source, open_source
from distilora.data.unlabelled import check_unlabelled
from distilora.errors import ConfigError, DataError, OutputError
from distilora.files.tables import Record
from distilora.model.adapters.methods import METHODS
from distilora.model.encoders.find import Encoder, find_encoder, weight_shapes
from distilora.progress import Progress, quiet
from distilora.runs.expert import check_expert, check_fragments
from distilora.runs.folder import FILES, check_output
from distilora.runs.initial import check_initial
from distilora.runs.resolve import check_adapter, check_lengths, check_method, check_tracker, with_absolute_paths
from distilora.tasks.base import Task
from distilora.tasks.file import check_task
from distilora.tasks.registry import find_task

# Copies of the trained parameters, 4 bytes each, on disk at once: three checkpoints (two are kept until the next is complete)
# of weights, two moments and the best weights; the model, and the one that it replaces.
COPIES = 3 * (1 + 2 + 1) + 2


@dataclass(frozen=True)
class Checked:
    """Results of the checks: the settings with absolute paths, the encoder, the task and the disk space for the run."""

    config: RunConfig
    encoder: Encoder
    task: Task
    disk_bytes: int  # of checkpoints and model


def check_run(config: RunConfig, task: Task | None = None, *, overwrite: bool = False, resume: bool = False) -> Checked:
    """Check everything a run needs without writing anything. Arguments are those of `train`.

    Raises ConfigError, DataError, EncoderError, OutputError or MissingExtra naming the field (and row) at fault.
    """
    if os.environ.get("RANK", "0") != "0":  # one of several processes, of which only the first prints and writes
        quiet()
    elif task is not None:
        check_task(task)
    folder = Path(config.output)
    if os.environ.get("RANK", "0") == "0":
        check_output(folder, overwrite, resume)
    config = with_absolute_paths(config)
    check_method(config)
    check_tracker(config)
    found = find_task(config.task) if task is None else task
    if found.generates and config.encoder.name == EncoderConfig().name:
        raise ConfigError(
            f"encoder.name: task {found.name} needs an encoder-decoder; name one, such as google/flan-t5-small, or a folder"
        )
    encoder = find_encoder(config.encoder.name, config.encoder.revision)
    check_lengths(config, encoder)
    check_adapter(config, encoder)
    check_initial(config, encoder)
    data, task = check_data(config.data, found)
    config = replace(config, data=data)
    task = task.configured(config)
    check_kind(config, encoder, task)
    check_expert(config, task)
    check_fragments(config, task)
    check_sections(config, task)
    check_balance(config, task)
    needed = 4 * COPIES * trained_numbers(config, encoder, task)
    _check_room(folder, needed, overwrite or resume)
    return Checked(config, encoder, task, needed)


def check_kind(config: RunConfig, encoder: Encoder, task: Task) -> None:
    """Raise ConfigError if the task writes text and the model does not, or the other way round, or the method cannot serve."""
    adapter, method = config.adapter, METHODS[config.adapter.method]
    writes = bool(encoder.architecture.decoder)
    if task.generates != writes:
        needs = "an encoder-decoder, such as google/flan-t5-small" if task.generates else "an encoder alone"
        family = encoder.config["model_type"]
        raise ConfigError(
            f"encoder.name: {encoder.name} is of family {family}, but task {task.name} needs {needs}; give one"
        )
    if writes and (method.quantised or adapter.last_blocks is not None or not method.numbers(adapter, (1, 1), True)):
        raise ConfigError(
            f"adapter.method: {method.name}{'' if adapter.last_blocks is None else ' with last_blocks'} given, but "
            "encoder-decoders are trained in all blocks, by lora or full; give one of them, without last_blocks"
        )


def check_sections(config: RunConfig, task: Task) -> None:
    """Raise ConfigError if a section of the settings is given that only another task reads."""
    for name in ("summary", "generation"):
        if name != task.section and getattr(config, name) != getattr(RunConfig(), name):
            raise ConfigError(f"{name}: given, but task {task.name} does not read it; drop it, or give another task")


def check_balance(config: RunConfig, task: Task) -> None:
    """Raise ConfigError if class imbalance is to be countered and the task has no classes, or not every example has a label."""
    default = TrainingConfig()
    for name in ("class_weights", "sampling", "logit_adjustment"):
        value = getattr(config.training, name)
        if value == getattr(default, name):
            continue
        if task.ngram_classes is None:
            raise ConfigError(
                f"training.{name}: {value} given, but task {task.name} has no classes to balance; drop it"
            )
        if config.data.unlabelled is not None:
            raise ConfigError(
                f"training.{name}: {value} given, but the texts of data.unlabelled have no labels to balance; drop one of the two"
            )


def check_data(config: DataConfig, task: Task | type[Task]) -> tuple[DataConfig, Task]:
    """Check the columns and labels of all splits; return the settings with the names of the splits, and the task.

    A task given as a class is set up from the training split.

    Only the first record is read of a split whose source declares its labels. Raises DataError or ConfigError naming the
    field and the record at fault.
    """
    source = open_source(config.path, config.name, config.revision, separator=config.separator)
    config = settle(config, source)
    test_source, test_split = find_test(config, source)
    is_set_up = isinstance(task, Task)
    task = task if isinstance(task, Task) else task.from_source(config, source)
    from_data = task.labels and config.labels is None and config.label_columns is None  # then all were read already
    if is_set_up or not from_data:
        _check_split(source, config.train_split, "data.train_split", task, config, divided=True)
    else:
        _check_first(source, config.train_split, "data.train_split", task, config)
    if config.validation_split not in (None, CARVED):
        _check_split(source, config.validation_split, "data.validation_split", task, config)
    if test_source is not None:
        setting = "data.test_split" if config.test_path is None else "data.test_path"
        _check_split(test_source, test_split, setting, task, config)
    if config.unlabelled is not None:
        check_unlabelled(config, task)
    return config, task


def trained_numbers(config: RunConfig, encoder: Encoder, task: Task) -> int:
    """Count the trainable parameters by the shapes in the encoder's files: exact but for the head's biases."""
    adapter, family, method = config.adapter, encoder.architecture, METHODS[config.adapter.method]
    count = encoder.width * (encoder.width + task.outputs)  # of the head
    first = 0 if adapter.last_blocks is None else encoder.blocks - adapter.last_blocks
    number = re.compile(rf"(?:^|\.){re.escape(family.blocks)}\.(\d+)\.")
    targets = tuple(f".{target}.weight" for target in family.targets(adapter.targets))
    for name, shape in weight_shapes(encoder).items():
        block = number.search(name)
        if adapter.last_blocks is None or (block is not None and int(block[1]) >= first):
            count += method.numbers(adapter, shape, f".{name}".endswith(targets))
    return count


def _check_first(source: Source, split: str, setting: str, task: Task, columns: DataConfig | None) -> None:
    first = next(iter(source.records(split, setting)), None)
    if first is None:
        raise DataError(f"{setting}: {source.name} {split} has no records; give another")
    _check_record(first, task, setting, columns)


def _check_split(
    source: Source, split: str, setting: str, task: Task, config: DataConfig, *, divided: bool = False
) -> None:
    """Read every record as the run will, or only the first if the source declares its labels."""
    columns = config if divided else None
    _check_first(source, split, setting, task, columns)
    if task.declared(source):
        return
    clean = cleaning(config.cleaning).clean
    with Progress(f"checking {split}", None, "records") as bar:
        for record in source.records(split, setting):
            texts = _check_record(record, task, setting, columns)
            if config.strict and not any(clean(text).strip() for text in texts):
                raise DataError(f"{record.place}: the text is blank; fill it, or drop --data.strict to skip such rows")
            bar.add(1)


def _check_record(record: Record, task: Task, setting: str, columns: DataConfig | None) -> tuple[str, ...]:
    try:
        example = task.read(record.values)
        if columns is not None:
            group_and_order(record.values, columns)
    except DataError as error:
        where = "" if setting == "data.train_split" else f"{setting}: "
        raise DataError(f"{where}{record.place}: {error}") from None
    return example.texts


def _check_room(folder: Path, needed: int, replaces: bool) -> None:
    """Raise OutputError if the disk has too little room; files of a former run that this one replaces count as room."""
    existing = folder.absolute()
    while not existing.is_dir():
        existing = existing.parent
    room = shutil.disk_usage(existing).free
    if replaces and folder.is_dir():
        replaced = [path for name in FILES for path in [folder / name, *(folder / name).rglob("*")]]
        room += sum(path.lstat().st_size for path in replaced if path.is_file())
    if room < needed:
        raise OutputError(
            f"output: {folder} cannot be written: its disk has room for {room / 1e6:,.1f} MB, checkpoints and model take "
            f"{needed / 1e6:,.1f} MB; make room, or give another --output"
        )
