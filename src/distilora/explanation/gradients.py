"""Explains an answer by gradients, with Captum on the torch backend, in the precision that it predicts in.

What is explained is f, a number that the task makes of its outputs (`Task.explained`): of a classification a label's calibrated
log-odds. What it is ascribed to is what the embeddings module gives for the tokens (word and position, normed), e [T, E]:

    integrated gradients    (e - b) * integral of df/de at b + a (e - b) over a from 0 to 1    (Sundararajan et al., 2017)
    gradient x input        e * df/de at e

The baseline b has the padding token in the place of every token but the special ones. Summed over all tokens,
integrated gradients are f(e) - f(b), up to the error of an integral by few points (Gauss-Legendre); gradient x input is
but the first term of f(e) - f(0), and its completeness error says how far from linear f is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilora.batching.rows import Rows
from distilora.errors import ArtifactError, MissingExtra
from distilora.model.network import Network


class Attribution(NamedTuple):
    """What the T tokens of a text have of a label's log-odds."""

    label: int
    logits: NDArray[np.float32]  # [1, C], before the temperature
    tokens: NDArray[np.float64]  # [T]
    difference: float  # of the log-odds, between the text and the baseline


def attribute(
    network: Network,
    rows: Rows,
    special: NDArray[np.bool_],
    label: int | None,
    temperature: float,
    steps: int | None,
    token_budget: int,
    precision: str = "fp32",
) -> Attribution:
    """Attribution of a label (None: the one answered) to the tokens of one text.

    Args:
        rows: one row, T tokens.
        special: which of them stand in the baseline as they are, [T].
        steps: points of integrated gradients; None: gradient x input.
        token_budget: tokens to a pass: several points are computed together.

    Raises MissingExtra without Captum, ArtifactError if a gradient is not finite. One thread at a time may use `network`.
    """
    try:
        from captum.attr import InputXGradient, IntegratedGradients
    except ImportError as error:
        raise MissingExtra(error.name or "captum", "explain") from None
    half = torch.autocast(network.device.type, torch.bfloat16, enabled=precision == "bf16")
    with torch.inference_mode(False), _frozen(network), half:
        with torch.no_grad():
            logits, embedded = network.through_embeddings(rows)
            chosen = int(logits[0].argmax()) if label is None else label
            if steps is None:
                baseline = torch.zeros_like(embedded)
                at_baseline, _ = network.through_embeddings(rows, baseline)
            else:
                blank = np.where(special, rows.ids, network.padding_id).astype(np.int32)
                at_baseline, baseline = network.through_embeddings(Rows(blank, rows.offsets, rows.row, rows.group))

        def of_embedded(some: Tensor) -> Tensor:
            """[N, T, E] -> [N]."""
            outputs, _ = network.through_embeddings(rows.take([0] * len(some)), some.flatten(0, 1))
            return _explained(network, outputs, chosen, temperature)

        whole = embedded[None].float().requires_grad_()  # bf16 would round the points between, and their sum
        if steps is None:
            found = InputXGradient(of_embedded).attribute(whole)
        else:
            together = max(1, token_budget // len(rows.ids))
            found = IntegratedGradients(of_embedded).attribute(
                whole, baseline[None].float(), n_steps=steps, internal_batch_size=together
            )
        both = _explained(network, torch.cat((logits, at_baseline)).cpu().double(), chosen, temperature)
    tokens = found[0].detach().cpu().double().sum(1)
    if not torch.isfinite(tokens).all() or not torch.isfinite(both).all():
        raise ArtifactError("explain: a gradient is not finite; the weights are not usable, train them again")
    return Attribution(chosen, logits.float().cpu().numpy(), tokens.numpy(), float(both[0] - both[1]))


def _explained(network: Network, outputs: Tensor, label: int, temperature: float) -> Tensor:
    """[N, ...] -> [N]."""
    scaled = (outputs if outputs.dtype == torch.float64 else outputs.float()) / temperature
    return network.task.explained(scaled, label)


@contextmanager
def _frozen(network: Network) -> Iterator[Any]:
    """Without gradients of weights, which nobody asks for here and which cost half as much again."""
    trained = list(network.trained().values())
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
