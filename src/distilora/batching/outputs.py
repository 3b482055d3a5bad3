"""Collects outputs of micro-batches, [g, ...] each, whose second dimension may differ, as the longest example's tokens do.

Shorter ones are filled up with NOTHING, a logit that no softmax sees.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

NOTHING = np.float32(-1e4)
Outputs = NDArray[np.float32]


def placed(outputs: Outputs | None, groups: int, indices: Any, part: Outputs) -> Outputs:
    """Place a part at `indices` of the outputs, [groups, ...], widening them as needed; None stands for no outputs yet."""
    if outputs is None:
        outputs = np.full((groups, *part.shape[1:]), NOTHING)
    if part.ndim > 1 and part.shape[1] != outputs.shape[1]:
        longest = max(part.shape[1], outputs.shape[1])
        outputs, part = widened(outputs, longest), widened(part, longest)
    outputs[indices] = part
    return outputs


def widened(outputs: Outputs, longest: int) -> Outputs:
    """Fill the second dimension up to `longest`."""
    missing = longest - outputs.shape[1]
    if not missing:
        return outputs
    return np.concatenate([outputs, np.full((len(outputs), missing, *outputs.shape[2:]), NOTHING)], axis=1)


def stacked(parts: list[Outputs]) -> Outputs:
    """Stack the outputs of single examples, [...] each, filled up to the longest."""
    if len({part.shape for part in parts}) == 1:
        return np.stack(parts)
    longest = max(part.shape[0] for part in parts)
    return np.concatenate([widened(part[None], longest) for part in parts])
