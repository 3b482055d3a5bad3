"""Rows through a backend: micro-batches by the plan, several at a time where there are cores, outputs in input order.

    lane 1   batch 0 ------> batch 2 ----> batch 4
    lane 2   batch 1 -----> batch 3 ------> ...             one thread each, no waiting for one another

On a CPU two threads on one micro-batch wait for each other after every operation; one micro-batch on each core does not
(LOG.md). A single micro-batch gets all threads. The last digits of a float may depend on the number of threads, so what
must be repeated bit for bit (`export/roundtrip.py`) runs without lanes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import local

import numpy as np
from numpy.typing import NDArray

from distilora.batching.batches import plan_batches
from distilora.batching.rows import Rows
from distilora.errors import ArtifactError
from distilora.inference.backends import Backend
from distilora.progress import Progress

Outputs = NDArray[np.float32]
AHEAD = 2  # micro-batches taken for each lane: one that it computes, one that it finds when it is done


def run_rows(
    rows: Rows, backend: Backend, token_budget: int | None = None, label: str = "", lanes: bool = False
) -> Outputs:
    """Outputs [G, ...] of all rows' examples, in input order, whatever micro-batches the plan makes.

    `token_budget` None takes the backend's; `lanes` computes as many micro-batches at once as the backend has lanes.
    Raises ValueError without rows, ArtifactError if an output is not finite.
    """
    batches = [
        batch for update in plan_batches(rows.group_lengths, token_budget or backend.token_budget) for batch in update
    ]
    if not batches:
        raise ValueError("no rows to run")
    found: Outputs | None = None
    width = min(backend.lanes, len(batches)) if lanes else 1
    with Progress(label, rows.groups) as bar, _computing(backend, width) as compute:
        for batch, some in zip(batches, compute(rows.take(batch) for batch in batches), strict=True):
            if not np.isfinite(some).all():
                raise ArtifactError(
                    "the model's outputs are not finite (NaN or infinity); predict in fp32, or train it again"
                )
            if found is None:
                found = np.empty((rows.groups, *some.shape[1:]), np.float32)
            found[batch] = some
            bar.add(len(batch))
    assert found is not None
    return found


@contextmanager
def _computing(backend: Backend, width: int) -> Iterator[Callable[[Iterable[Rows]], Iterator[Outputs]]]:
    """A `map` of micro-batches to outputs, in order, by `width` threads; it takes AHEAD x width of them at most ahead."""
    if width == 1:
        yield lambda batches: map(backend.run, batches)
        return
    own = local()

    def alone(rows: Rows) -> Outputs:
        if not hasattr(own, "run"):
            own.run = backend.lane()
        found: Outputs = own.run(rows)
        return found

    def in_order(batches: Iterable[Rows]) -> Iterator[Outputs]:
        waiting: deque[Future[Outputs]] = deque()
        for batch in batches:
            waiting.append(pool.submit(alone, batch))
            if len(waiting) == AHEAD * width:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    pool = ThreadPoolExecutor(width)
    try:
        yield in_order
    finally:
        pool.shutdown(cancel_futures=True)
