"""Temperature scaling (Guo et al., ICML 2017): softmax(logits / T), T fitted on validation, labels unchanged."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.progress import say

LOW, HIGH = 0.05, 20.0


def fit_temperature(logits: NDArray[np.float32], targets: Sequence[Any]) -> float:
    """The T in [0.05, 20] with the least mean of -log softmax(logits / T)[target]; logits [N, C], targets [N]."""
    from scipy.optimize import minimize_scalar

    values = np.asarray(logits, np.float64)
    wanted = np.asarray(targets, np.int64)

    def loss(log_temperature: float) -> float:
        scaled = values / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(wanted)), wanted]))

    found = float(np.exp(minimize_scalar(loss, bounds=(np.log(LOW), np.log(HIGH)), method="bounded").x))
    if at_limit(found):
        say(f"warning: the temperature is at its limit, {found:.3g}: {len(wanted):,} validation examples do not tell how sure "
            "the model may be; its probabilities are not calibrated")  # fmt: skip
    return found


def at_limit(temperature: float) -> bool:
    """Whether a temperature is as low or as high as `fit_temperature` goes: then it says nothing."""
    return not 1.01 * LOW < temperature < HIGH / 1.01
