"""Attributions of an answer to tokens by gradients, with Captum on the torch backend, in the backend's precision.

The quantity explained, f, is computed by the task from its outputs (`Task.explained`): for classification, a label's calibrated
log-odds. It is attributed to the embeddings of the tokens (word plus position, normalised), e [T, E]:

    integrated gradients    (e - b) * integral of df/de at b + a (e - b) over a from 0 to 1    (Sundararajan et al., 2017)
    gradient x input        e * df/de at e

The baseline b replaces every token but the special ones by the padding token. Summed over all tokens, integrated gradients
equal f(e) - f(b), up to the error of a quadrature with few points (Gauss-Legendre); gradient x input is only the first-order
term of f(e) - f(0), and its completeness error shows how far f is from linear.
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
from distilora.model.precision import computing_in


class Attribution(NamedTuple):
    """Attribution of a label's log-odds to the T tokens of a text."""

    logits: NDArray[np.float32]  # [1, C], before the temperature
    tokens: NDArray[np.float64]  # [T]
    difference: float  # log-odds of the text minus those of the baseline


def attribute(
    network: Network,
    rows: Rows,
    special: NDArray[np.bool_],
    label: int,
    temperature: float,
    steps: int | None,
    token_budget: int,
    precision: str = "fp32",
) -> Attribution:
    """Attribute the log-odds of a label, or what else the task explains, to the tokens of one text.

    Args:
        rows: one row, T tokens.
        special: whether the baseline keeps a token, [T].
        steps: points of integrated gradients; None: gradient x input.
        token_budget: most tokens in a forward pass, which computes several points together.

    Raises MissingExtra without Captum, ArtifactError if a gradient is not finite. One thread at a time may use `network`.
    """
    try:
        from captum.attr import InputXGradient, IntegratedGradients
    except ImportError as error:
        raise MissingExtra(error.name or "captum", "explain") from None
    with torch.inference_mode(False), _frozen(network), computing_in(precision, network.device):
        with torch.no_grad():
            logits, embedded = network.through_embeddings(rows)
            if steps is None:
                baseline = torch.zeros_like(embedded)
                at_baseline, _ = network.through_embeddings(rows, baseline)
            else:
                padded = np.where(special, rows.ids, network.padding_id).astype(np.int32)
                at_baseline, baseline = network.through_embeddings(Rows(padded, rows.offsets, rows.row, rows.group))

        def explained(points: Tensor) -> Tensor:
            """Compute f at embeddings [N, T, E]: [N]."""
            outputs, _ = network.through_embeddings(rows.take([0] * len(points)), points.flatten(0, 1))
            return _explained(network, outputs, label, temperature)

        inputs = embedded[None].float().requires_grad_()  # bf16 would round the intermediate points and their sum
        if steps is None:
            attributions = InputXGradient(explained).attribute(inputs)
        else:
            batch_size = max(1, token_budget // len(rows.ids))
            attributions = IntegratedGradients(explained).attribute(
                inputs, baseline[None].float(), n_steps=steps, internal_batch_size=batch_size
            )
        log_odds = _explained(network, torch.cat((logits, at_baseline)).cpu().double(), label, temperature)
    tokens = attributions[0].detach().cpu().double().sum(1)
    if not torch.isfinite(tokens).all() or not torch.isfinite(log_odds).all():
        raise ArtifactError("explain: a gradient is not finite; the weights are not usable, train them again")
    return Attribution(logits.float().cpu().numpy(), tokens.numpy(), float(log_odds[0] - log_odds[1]))


def _explained(network: Network, outputs: Tensor, label: int, temperature: float) -> Tensor:
    """Compute f from outputs [N, ...]: [N]."""
    scaled = (outputs if outputs.dtype == torch.float64 else outputs.float()) / temperature
    return network.task.explained(scaled, label)


@contextmanager
def _frozen(network: Network) -> Iterator[Any]:
    """Disable gradients of the weights: they are not needed here and would cost half as much again."""
    trained = list(network.trained().values())
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
