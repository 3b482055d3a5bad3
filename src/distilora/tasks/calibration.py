"""Calibrates probabilities by temperature scaling: softmax(logits / T), with T fitted on validation (Guo et al., ICML 2017).

A temperature changes probabilities, never the predicted label.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.progress import say

LOW, HIGH = 0.05, 20.0


def fit_temperature(logits: NDArray[np.float32], targets: Sequence[Any]) -> float:
    """Fit the T in [0.05, 20] that minimises the mean of -log softmax(logits / T)[target]; logits [N, C], targets [N]."""
    from scipy.optimize import minimize_scalar

    values = np.asarray(logits, np.float64)
    indices = np.asarray(targets, np.int64)

    def loss(log_temperature: float) -> float:
        scaled = values / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(indices)), indices]))

    temperature = float(np.exp(minimize_scalar(loss, bounds=(np.log(LOW), np.log(HIGH)), method="bounded").x))
    if at_limit(temperature):
        say(f"warning: probabilities are not calibrated: on {len(indices):,} validation examples the temperature is at its limit, "
            f"{temperature:.3g}; validate on more examples")  # fmt: skip
    return temperature


def at_limit(temperature: float) -> bool:
    """Tell whether a temperature is at a bound of `fit_temperature`, and so does not calibrate anything."""
    return not 1.01 * LOW < temperature < HIGH / 1.01
