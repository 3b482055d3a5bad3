"""Plans which examples run together: a pure function of lengths, budget, seed and epoch.

Training: an update is a fixed number of examples drawn by a seeded shuffle, sorted by length and cut into
micro-batches whose padded size, count x longest, stays within the token budget. Its loss is the sum over examples
divided by their count, so the gradient does not depend on the cut. A checkpoint's place is (seed, epoch, update):
the plan of that epoch is computed again and entered at that update.

Prediction and serving: no `update_size`, so that everything is one update, longest examples first (a machine that
is too small says so at once). Micro-batches hold input positions: results go back in input order by assignment.

Sorting is kept within an update. Sorting over several updates saves some padding, but makes the updates
homogeneous in length, which is a bias of the gradient; LOG.md has the figures.
"""

import numpy as np
from numpy.typing import NDArray

Update = list[NDArray[np.int64]]  # micro-batches of example indices


def plan(
    lengths: NDArray[np.int64],
    token_budget: int,
    update_size: int | None = None,
    seed: int = 0,
    epoch: int = 0,
) -> list[Update]:
    """Updates, each a list of micro-batches of indices into `lengths`.

    Args:
        lengths: tokens of each example, [N].
        token_budget: padded tokens (count x longest) a micro-batch may hold; a longer example runs alone.
        update_size: examples an update; the epoch's last one may be smaller. None: one update, in length order.
        seed, epoch: choose the shuffle; unused without `update_size`.

    Raises ValueError if `token_budget` or `update_size` is not positive.
    """
    if token_budget < 1 or (update_size is not None and update_size < 1):
        raise ValueError("token_budget and update_size must be positive")
    lengths = np.asarray(lengths)
    if update_size is None:
        updates = [np.arange(len(lengths))] if len(lengths) else []
    else:
        order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
        updates = [order[start : start + update_size] for start in range(0, len(order), update_size)]
    return [_micro_batches(update, lengths, token_budget) for update in updates]


def _micro_batches(examples: NDArray[np.int64], lengths: NDArray[np.int64], token_budget: int) -> Update:
    examples = examples[np.lexsort((examples, -lengths[examples]))]  # longest first; ties by index
    batches, start = [], 0
    while start < len(examples):
        longest = max(int(lengths[examples[start]]), 1)
        stop = start + max(token_budget // longest, 1)
        batches.append(examples[start:stop].astype(np.int64))
        start = stop
    return batches
