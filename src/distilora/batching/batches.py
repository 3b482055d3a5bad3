"""Plans which examples run together: a pure function of lengths, budget, seed and epoch.

Training: an update is a fixed number of examples, cut into micro-batches whose padded size, count x longest, stays
within the token budget. Its loss is the sum over examples divided by their count, so the gradient does not depend on
the cut. A checkpoint's place is (seed, epoch, update): the plan of that epoch is computed again and resumed there.

Padding is small although an update mixes lengths: a seeded shuffle gives windows of a few updates, each window is sorted by
length and halved, and every update draws a run of neighbours from either half. Which examples make an update does not
depend on the budget. The epoch's last, smaller update is of random examples.

Prediction and serving: no `update_size`, so that everything is one update, longest examples first (too little memory shows
at once). Micro-batches hold input positions: outputs are assigned back into input order.
"""

import numpy as np
from numpy.typing import NDArray

Update = list[NDArray[np.int64]]  # micro-batches of example indices
WINDOW = 8  # updates sorted together
BANDS = 2  # runs of neighbouring lengths in an update


def plan_batches(
    lengths: NDArray[np.int64],
    token_budget: int,
    update_size: int | None = None,
    seed: int = 0,
    epoch: int = 0,
) -> list[Update]:
    """Plan the updates, each a list of micro-batches of indices into `lengths`.

    Args:
        lengths: tokens of each example, [N].
        token_budget: padded tokens (count x longest) a micro-batch may hold; a longer example runs alone.
        update_size: examples per update; the epoch's last one may be smaller. None: one update, in length order.
        seed, epoch: determine the shuffle; unused without `update_size`.

    Raises ValueError if `token_budget` or `update_size` is not positive.
    """
    if token_budget < 1 or (update_size is not None and update_size < 1):
        raise ValueError("token_budget and update_size must be positive")
    lengths = np.asarray(lengths)
    if update_size is None:
        return [cut(np.arange(len(lengths)), lengths, token_budget)] if len(lengths) else []
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    full = len(order) // update_size * update_size  # examples in updates of full size
    updates: list[Update] = []
    for start in range(0, full, WINDOW * update_size):
        window = order[start : min(start + WINDOW * update_size, full)]
        updates += _window(window, lengths, token_budget, update_size, rng)
    if full < len(order):
        updates.append(cut(order[full:], lengths, token_budget))
    return updates


def _window(
    window: NDArray[np.int64],
    lengths: NDArray[np.int64],
    token_budget: int,
    update_size: int,
    rng: np.random.Generator,
) -> list[Update]:
    """Plan the updates of one window, each with a run from every band of lengths."""
    updates: list[Update] = [[] for _ in range(len(window) // update_size)]
    window = window[np.lexsort((window, -lengths[window]))]
    start = 0
    for band in np.array_split(np.arange(update_size), BANDS):
        for update in rng.permutation(len(updates)):
            run = window[start : start + len(band)]
            updates[update] += cut(run, lengths, token_budget)
            start += len(band)
    return updates


def cut(examples: NDArray[np.int64], lengths: NDArray[np.int64], token_budget: int) -> Update:
    """Cut the examples into micro-batches within the budget, longest first."""
    examples = examples[np.lexsort((examples, -lengths[examples]))]  # longest first; ties by index
    batches, start = [], 0
    while start < len(examples):
        longest = max(int(lengths[examples[start]]), 1)
        stop = start + max(token_budget // longest, 1)
        batches.append(examples[start:stop].astype(np.int64))
        start = stop
    return batches
