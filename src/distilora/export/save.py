"""Saving of a trained network as a verified artifact: written, compared across bases, reloaded by a fresh process."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from distilora.artifact.check import Check, check_examples
from distilora.artifact.format import Artifact, write_artifact
from distilora.artifact.scores import SCORES, pack_scores
from distilora.batching.rows import Rows
from distilora.config.schema import RunConfig
from distilora.data.parts import Parts
from distilora.errors import RoundTripError
from distilora.export.roundtrip import verify
from distilora.hardware import Device, Precision
from distilora.inference.backends.torch_backend import TorchBackend
from distilora.inference.calibrate import Calibrator
from distilora.inference.lanes import run_rows
from distilora.lexicon.format import write_lexicon
from distilora.model.adapters import quantisation
from distilora.model.adapters.methods import METHODS
from distilora.model.build import BaseForm, new_network
from distilora.model.encoders.find import Encoder
from distilora.model.network import Network
from distilora.model.weights import save_weights
from distilora.progress import say
from distilora.tasks.abstention import scored_answers
from distilora.tasks.base import Task
from distilora.version import __version__


def write_model(
    folder: Path,
    config: RunConfig,
    encoder: Encoder,
    task: Task,
    parts: Parts,
    network: Network,
    tokenizer: Tokenizer,
    calibrate: Calibrator,
    validation: Rows,
    outputs: NDArray[np.float32],
    lexicon: dict[str, Any],
) -> Artifact:
    """Write `folder`/model.

    For a qlora run, measure and record on either base of its adapter how far the outputs agree with the run's own
    (`outputs`, of the validation rows, in the run's precision). `lexicon` describes the n-gram expert of `calibrate`, if there is
    one, for the artifact.
    """
    assert config.evaluation.token_budget is not None  # resolved
    budget, precision = config.evaluation.token_budget, config.training.precision
    method = METHODS[config.adapter.method]
    examples = check_examples(parts.validation.items)
    rows = task.tokenise(tokenizer, examples).rows
    expert = calibrate.expert
    copies = Copies(config, encoder, task, network)
    check = Check(
        examples,
        run_rows(rows, TorchBackend(network, precision, budget)),
        run_rows(rows, TorchBackend(copies.network("fp32"), "fp32", budget)),
        None if expert is None else expert.logits(examples),
    )
    agreements: dict[str, Any] = {}
    bases: tuple[BaseForm, ...] = ("4bit", "full") if method.quantised else ()
    for base in bases:
        backend = TorchBackend(copies.network(precision, base), precision, budget)
        on_base = run_rows(validation, backend, label=f"agreement on base {base}")
        agreements[base] = agreement(task, outputs, on_base)

    items = parts.validation.items
    answers = task.decode(calibrate(outputs, items), items, tokenizer)
    alone = calibrate.views(outputs, items).get("expert")
    of_expert = None if alone is None else task.decode(alone, items, tokenizer)
    scored = scored_answers(task, items, answers, config.training.validations, of_expert)

    def write_files(target: Path) -> None:
        tokenizer.save(str(target / "tokenizer.json"))
        save_weights(network, target, method.saved)
        if expert is not None:
            write_lexicon(expert.lexicon, target)
        if scored is not None:
            (target / SCORES).write_bytes(pack_scores({f"torch {precision}": scored}))

    artifact = Artifact(
        task={"name": task.name, "settings": dict(task.settings)},
        cleaning={"name": parts.cleaning.name, "version": parts.cleaning.version},
        max_length=config.data.max_length,
        truncation_side=config.data.truncation_side,
        encoder=encoder.describe(),
        method=method.name,
        weights=method.saved,
        precision=precision,
        attention=config.encoder.attention,
        token_budget=budget,
        temperature=calibrate.temperature,
        quantisation=quantisation.describe() if method.quantised else None,
        agreement=agreements,
        lexicon=lexicon,
        distilora=__version__,
    )
    return write_artifact(folder / "model", artifact, write_files, check)


class Copies:
    """Copies of the network, made from the encoder's own weights and the trained ones in memory, not from a saved file."""

    def __init__(self, config: RunConfig, encoder: Encoder, task: Task, network: Network) -> None:
        self.config, self.encoder, self.task, self.original = config, encoder, task, network

    def network(self, precision: Precision, base: BaseForm | None = None) -> Network:
        """Build a copy in another precision, or on another base."""
        copy = new_network(
            self.encoder, self.task, self.config.adapter, precision=precision, device=self.original.device,
            attention=self.config.encoder.attention, dropout=0.0, base=base,
        )  # fmt: skip
        trained = self.original.trained()
        with torch.no_grad():
            for name, parameter in copy.trained().items():
                parameter.copy_(trained[name])
        return copy


def agreement(task: Task, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> dict[str, Any]:
    """Compare two sets of outputs [G, ...] of the same texts.

    Returns `largest_difference` of any output and, for a task with labels, `labels`, the share of equal answers.
    """
    summary: dict[str, Any] = {"texts": len(ours), "largest_difference": float(np.abs(ours - theirs).max(initial=0.0))}
    labels = task.agreement(ours, theirs)
    if labels is not None:
        summary["labels"] = labels
    return summary


def verified(folder: Path, task: Task, device: Device) -> dict[str, Any]:
    """Verify `folder`/model by a round trip; on RoundTripError the model is first renamed to model.rejected."""
    try:
        comparison = verify(folder / "model", task, device)
    except RoundTripError:
        shutil.rmtree(folder / "model.rejected", ignore_errors=True)
        (folder / "model").rename(folder / "model.rejected")
        raise
    say(f"round trip: a fresh process gives back the outputs of {comparison['texts']} texts")
    return comparison
