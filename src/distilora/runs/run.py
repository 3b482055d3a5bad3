"""A whole run, top to bottom: data, tokens, network, training, artifact, round trip, evaluation, report.

It writes to the run's folder:

    model/               the artifact, which is all that prediction needs
    run.yaml             resolved settings
    metrics.json         figures, data counts, costs
    predictions.parquet  every answer on validation and test
    environment.json     versions, processor, commit
    seen_texts.npy       hashes of the texts trained and chosen on, by which `evaluate` recognises them
    events/              curves for TensorBoard
    report.html          figures and plots for people
    README.md            model card
    checkpoints/         the last two; removed when the run is finished
"""

import shlex
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from distilora import hardware
from distilora.artifact.format import Artifact
from distilora.batching.tokens import Tokenised, unknown_only, with_truncation
from distilora.config.parse import to_tree
from distilora.config.schema import RunConfig
from distilora.data.duplicates import fingerprints
from distilora.data.examples import Examples
from distilora.data.fragments import Fragments, cut_fragments
from distilora.data.overlap import shared_copies
from distilora.data.parts import Parts, read_parts
from distilora.errors import Interrupted
from distilora.evaluation.baselines import NgramBaseline, fit_baselines
from distilora.evaluation.measure import Measured, measure
from distilora.export.save import verified, write_model
from distilora.files.atomic import atomic_text, write_json
from distilora.files.locks import let_go
from distilora.inference.backends.torch_backend import TorchBackend
from distilora.inference.calibrate import Calibrator
from distilora.inference.lanes import run_rows
from distilora.model.adapters.methods import METHODS
from distilora.model.adapters.quantisation import check_device, require_bitsandbytes, size
from distilora.model.build import new_network
from distilora.model.encoders.find import load_tokenizer
from distilora.model.network import Network
from distilora.progress import say
from distilora.runs.clock import Clock
from distilora.runs.distil import FOLDER as TEACHER
from distilora.runs.distil import Teacher, Unlabelled, learn, measure_steps, read_texts, teach
from distilora.runs.environment import environment
from distilora.runs.expert import FittedExpert, fit_expert, labelled, sampled
from distilora.runs.fitting import Fitting
from distilora.runs.folder import claim, writing_run
from distilora.runs.initial import check_initial, former_texts, start_from
from distilora.runs.outcome import Outcome, write_outcome
from distilora.runs.preflight import Checked, check_run
from distilora.runs.resolve import resolve, say_if_on_other_threads, say_what_is_used
from distilora.tasks.base import Task
from distilora.training import memory
from distilora.training.imbalance import Balance, balance_of, overdone
from distilora.training.loop import Fitted
from distilora.training.processes import from_environment, local_index
from distilora.training.setup import Labelled


def train(
    config: RunConfig,
    task: Task | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    checked: Checked | None = None,
) -> dict[str, Any]:
    """Carry out a whole run; return the contents of metrics.json, or {} in a process of the run that does not write it.

    Args:
        config: the settings; nulls are resolved and written to run.yaml.
        task: the task to train; None: the one that `config.task` names, set up for the data.
        overwrite: replace the files of a former run in `config.output`.
        resume: continue from that folder's latest checkpoint.
        checked: result of `preflight.check_run` for the same arguments; None: it is called here.

    From this call on, glibc keeps freed memory in the whole process (hardware.py). The caller's random state, threads and
    Accelerator are restored.

    Raises ConfigError, DataError, EncoderError or MissingExtra for impossible settings or data, before anything is
    written; OutputError if another process writes the folder or the disk is full; Interrupted when stopped;
    RoundTripError if the saved model does not give back its outputs.
    """
    with Run(config, task, overwrite=overwrite, resume=resume, checked=checked) as run:
        run.read()
        run.build()
        try:
            run.fit()
            if not run.processes.first:
                return {}
            run.save()
            run.evaluate()
            return run.finish()
        except KeyboardInterrupt:
            command = f"distilora train --resume {shlex.quote(str(run.folder))}"
            raise Interrupted(f"stopped; continue with: {command}", signal.SIGINT) from None


_STAGE_OF = {  # attribute -> the stage that sets it
    "parts": "read", "learnt": "read", "fragments": "read",
    "expert": "read", "unlabelled": "read", "tokenizer": "read", "train_tokens": "read",
    "validation_tokens": "read", "network": "build", "parameters": "build", "fitted": "fit", "calibrate": "save",
    "artifact": "save", "round_trip": "save", "measured": "evaluate",
}  # fmt: skip


class Run:
    """A run, stage by stage; `train` goes through all of them. Each stage sets some of the attributes below.

    The constructor checks everything that `preflight.check_run` can and resolves nulls in the settings; nothing is written
    before `fit`.
    """

    parts: Parts
    learnt: Examples  # training examples, then fragments of them
    fragments: Fragments
    train_tokens: Tokenised  # of `learnt`
    validation_tokens: Tokenised
    expert: FittedExpert | None  # with `lexicon`, `expert_targets` or unlabelled texts
    unlabelled: Unlabelled | None
    teacher: Teacher | None = None  # of a student, once it is trained
    network: Network
    initial: dict[str, Any] | None = None  # of the run that it starts from
    parameters: dict[str, Any]  # counts: trained, total, share
    fitted: Fitted
    calibrate: Calibrator
    artifact: Artifact
    round_trip: dict[str, Any]
    measured: list[Measured]  # the final test first, if there is one

    def __init__(
        self,
        config: RunConfig,
        task: Task | None = None,
        *,
        overwrite: bool = False,
        resume: bool = False,
        checked: Checked | None = None,
    ) -> None:
        self._clock = Clock()
        self._overwrite, self._resume = overwrite, resume
        self.folder = Path(config.output)
        self.processes = from_environment()
        self.checked = checked or check_run(config, task, overwrite=overwrite, resume=resume)
        self.config = resolve(self.checked.config)
        self.device = torch.device(self.config.training.device)
        if self.device.type == "cpu":
            hardware.keep_freed_memory()
        elif self.processes.count > 1 and self.device.type == "cuda":
            self.device = torch.device("cuda", local_index())
            torch.cuda.set_device(self.device)
        if METHODS[config.adapter.method].quantised:
            check_device(self.device)
            require_bitsandbytes()
        self.task, self.encoder = self.checked.task, self.checked.encoder
        self._while_open = ExitStack()
        self._while_open.enter_context(hardware.threads_for(self.config.training.threads))
        say_what_is_used(self.config, self.encoder)
        if resume and self.config.training.device == "cpu":
            say_if_on_other_threads(self.folder)
        self._above = memory.after_imports_mb()
        self._peak = memory.Peak(torch.device("cpu"), every_s=0.05)  # host memory over the whole run
        self._peak.__enter__()

    def __getattr__(self, name: str) -> Any:
        """Raise AttributeError; for a result that is not there yet it names the stage to call."""
        if name in _STAGE_OF:
            raise AttributeError(f"{name}: is there after {_STAGE_OF[name]}(); call that first")
        raise AttributeError(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder and the threads; an unfinished run can be continued with `resume`."""
        self._peak.stop()
        self._while_open.close()
        let_go(self.folder)

    def read(self, parts: Parts | None = None) -> Parts:
        """Read, clean and split the data, unless `parts` are given, and tokenise the training and validation texts."""
        self.parts = read_parts(self.config.data, self.task) if parts is None else parts
        self.task = self.task.learnt_from(self.parts.train)
        data = self.config.data
        self.tokenizer = with_truncation(load_tokenizer(self.encoder), data.max_length, data.truncation_side)
        self.fragments = cut_fragments(self.parts.train, data.fragments, data.seed)
        self.learnt = Examples("train", [*self.parts.train.items, *self.fragments.examples.items])
        self.train_tokens = self.task.tokenise(self.tokenizer, self.learnt.items, "tokenising train")
        self.unlabelled = read_texts(self.config, self.task, self.parts, self.tokenizer) if data.unlabelled else None
        self.validation_tokens = self.task.tokenise(
            self.tokenizer, self.parts.validation.items, "tokenising validation"
        )
        unknown = unknown_only(self.tokenizer, self.train_tokens.rows)
        if unknown:
            say(f"warning: the tokenizer knows no word of {unknown:,} of {len(self.learnt):,} training texts (emoji, another "
                "script): the encoder cannot tell them apart; choose one that reads them")  # fmt: skip
        if note := overdone(self.config.training):
            say(f"warning: {note}")
        self._clock.mark("data")
        teaches = self.config.training.expert_targets > 0
        needed = self.config.lexicon != "none" or teaches or self.unlabelled is not None
        self.expert = fit_expert(self.task, self.parts, teaches) if needed else None
        self._clock.mark("n-gram expert")
        return self.parts

    def build(self) -> Network:
        """Build the network to train: the encoder, the adapter that the method injects, a fresh head."""
        training = self.config.training
        self.network = new_network(
            self.encoder, self.task, self.config.adapter, precision=training.precision, device=self.device,
            attention=self.config.encoder.attention, dropout=training.dropout, seed=training.seed,
        )  # fmt: skip
        former = check_initial(self.config, self.encoder)
        if former is not None:
            self.initial = start_from(self.network, former)
        self.parameters = _count(self.network)
        phrase = METHODS[self.config.adapter.method].phrase
        trained, total = self.parameters["trained"], self.parameters["total"]
        say(f"{phrase}: training {trained:,} of {total:,} parameters ({self.parameters['share']:.2%})")
        return self.network

    def fit(self) -> Fitted:
        """Claim the folder and train; the network then has the best weights."""
        network, train = self.network, Labelled(self.train_tokens.rows, self._training_targets(), self._balance())
        validation = Labelled(self.validation_tokens.rows, self._validation_targets())
        with writing_run(self.folder):
            if self.processes.first:
                claim(self.folder, self._overwrite, self._resume)
                with atomic_text(self.folder / "run.yaml") as stream:
                    yaml.safe_dump(to_tree(self.config), stream, sort_keys=False, allow_unicode=True)
                write_json(self.folder / "environment.json", environment())
            fitting = Fitting(self.config, self.encoder, self.folder, self._resume, self.processes, validation)
            with memory.Peak(self.device, self._above) as peak:
                if self.unlabelled is None:
                    self.fitted = fitting.fit(network, train, self.config.training)
                else:
                    assert self.expert is not None
                    self.teacher = teach(fitting, network, self.expert, train, self.unlabelled)
                    self._clock.mark("teacher")
                    if self.config.distillation.start == "encoder":
                        network = self.build()
                    self.fitted = learn(fitting, network, self.teacher, train, self.unlabelled)
        self.fitted.memory["peak_mb"] = peak.mb
        self._clock.mark("training")
        return self.fitted

    def fit_calibration(self) -> Calibrator:
        """Fit the temperature, and the weights of an n-gram expert that is part of the model, on validation."""
        targets, outputs = self._validation_targets(), self.fitted.outputs
        fitted = self.expert if self.config.lexicon != "none" else None
        expert = None if fitted is None else fitted.combined(outputs, targets)
        calibrate = Calibrator(self.task.fit_temperature(outputs, targets), expert)
        self.task = self.network.task = self.task.decided(calibrate(outputs, self.parts.validation.items), targets)
        return calibrate

    def outputs(self, tokens: Tokenised, label: str) -> NDArray[np.float32]:
        """Compute the network's outputs of tokenised examples, [G, ...], showing progress under `label`."""
        backend = TorchBackend(self.network, self.config.training.precision, _budget(self.config))
        return run_rows(tokens.rows, backend, label=label, lanes=True)

    def save(self) -> Artifact:
        """Fit the temperature and the weights of an n-gram expert, write model/ and verify it by a round trip."""
        self.calibrate = self.fit_calibration()
        expert = self.calibrate.expert
        lexicon = {} if self.expert is None or expert is None else self.expert.describe(expert)
        with writing_run(self.folder):
            self.artifact = write_model(
                self.folder, self.config, self.encoder, self.task, self.parts, self.network, self.tokenizer,
                self.calibrate, self.validation_tokens.rows, self.fitted.outputs, lexicon,
            )  # fmt: skip
        self.round_trip = verified(self.folder, self.task, self.config.training.device)
        self._clock.mark("saving and round trip")
        return self.artifact

    def evaluate(self) -> list[Measured]:
        """Measure the validation split and then, once, the test split, n-gram baselines beside the model."""
        self._baselines = self._fit_baselines()
        self.measured = [self._measure(self.parts.validation, self.validation_tokens, self.fitted.outputs)]
        if self.teacher is not None:
            self._measure_steps(self.measured[0], self.parts.validation, self.fitted.outputs, self.teacher.validation)
        splits = {"train": self._learnt_from(), "validation": self.parts.validation}
        if self.parts.read_test is not None:
            test = splits["test"] = self.parts.read_test()
            tokens = self.task.tokenise(self.tokenizer, test.items, f"tokenising {test.split}")
            outputs = self.outputs(tokens, f"predicting {test.split}")
            self.measured.insert(0, self._measure(test, tokens, outputs))
            if self.teacher is not None:
                precision, label = self.config.training.precision, f"the teacher on {test.split}"
                of_teacher = self.teacher.outputs(self.network, tokens, precision, _budget(self.config), label)
                self._measure_steps(self.measured[0], test, outputs, of_teacher)
        self.parts.summary["copies_between_splits"] = shared_copies(splits)
        former = check_initial(self.config, self.encoder)
        if former is not None:
            self.parts.notes.extend(former_texts(former, [splits[name] for name in splits if name != "train"]))
        self._clock.mark("evaluation")
        return self.measured

    def finish(self) -> dict[str, Any]:
        """Write the report and all other outcomes, and release the folder; return the contents of metrics.json."""
        pad_token = self.tokenizer.id_to_token(int(self.encoder.config.get("pad_token_id") or 0)) or "[PAD]"
        trained_on = [*self._learnt_from().items, *self.parts.validation.items]
        trained_on += [] if self.unlabelled is None else self.unlabelled.examples.items
        outcome = Outcome(
            self.config, self.encoder, self.artifact, pad_token, self.task, self.parts, len(self.fragments.examples),
            len(self.train_tokens.rows.ids), self.parameters, self.fitted, self.round_trip, self.measured,
            fingerprints([" ".join(e.texts) for e in trained_on]), {**self._clock.costs(), **self._memory()},
            None if self.unlabelled is None else self.unlabelled.counts, self.initial,
        )  # fmt: skip
        with writing_run(self.folder):
            summary = write_outcome(self.folder, outcome)
        for checkpoints in ("checkpoints", TEACHER):
            shutil.rmtree(self.folder / checkpoints, ignore_errors=True)
        self.close()
        return summary

    def _memory(self) -> dict[str, float]:
        """Collect the peak memory of this process; `peak_anonymous_mb` excludes mapped files such as the prefix cache."""
        return {
            "peak_anonymous_mb": round(self._peak.mb, 1),
            "cache_on_disk_mb": round(self.fitted.prefix["bytes"] / 1e6, 1),
            "cache_found_mb": round(self.fitted.prefix["found_bytes"] / 1e6, 1),
            "peak_resident_mb": round(hardware.peak_resident_mb(), 1),
        }

    def _learnt_from(self) -> Examples:
        """Return the labelled examples that anything in the model was fitted on."""
        return self.parts.train if self.expert is None else labelled(self.parts)

    def _fit_baselines(self) -> list[NgramBaseline]:
        if not self.config.evaluation.baselines:
            return []
        nbsvm = None if self.expert is None else self.expert.baseline()
        return fit_baselines(self.task, sampled(labelled(self.parts)), nbsvm)

    def _measure(self, examples: Examples, tokens: Tokenised, outputs: Any) -> Measured:
        return measure(
            self.task, examples, tokens, outputs, self.calibrate, self.config.evaluation, self.tokenizer,
            self.task.counts(self.parts.train), self._baselines,
        )  # fmt: skip

    def _training_targets(self) -> list[Any]:
        targets, share = self.task.targets(self.learnt.items, self.tokenizer), self.config.training.expert_targets
        teacher = None if self.expert is None else self.expert.teacher
        if teacher is None:
            return targets
        return self.task.soften(targets, np.concatenate([teacher, teacher[self.fragments.source]]), share)

    def _balance(self) -> Balance:
        """Return what counters class imbalance."""
        classes = self.task.ngram_classes
        return Balance() if classes is None else balance_of(self.learnt.targets, classes, self.config.training)

    def _measure_steps(self, measured: Measured, examples: Examples, outputs: Any, of_teacher: Any) -> None:
        """Add what each step of the distillation gives to a split's metrics."""
        assert self.teacher is not None
        targets = self.task.targets(examples.items, self.tokenizer)
        measured.metrics["distillation"] = measure_steps(
            self.task,
            self.teacher,
            of_teacher,
            self.calibrate,
            outputs,
            examples,
            targets,
            self.config.evaluation.bootstrap,
        )

    def _validation_targets(self) -> list[Any]:
        return self.task.targets(self.parts.validation.items, self.tokenizer)


def _count(network: Network) -> dict[str, Any]:
    trained = sum(p.numel() for p in network.trained().values())
    replaced = sum(p.numel() for name, p in network.named_parameters() if "original_module" in name)
    total = sum(size(p) for p in network.parameters()) - replaced
    return {"trained": trained, "total": total, "share": trained / total}


def _budget(config: RunConfig) -> int:
    assert config.evaluation.token_budget is not None  # resolved
    return config.evaluation.token_budget
