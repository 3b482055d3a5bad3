"""Runs rows through a backend in planned micro-batches, several at a time where there are cores; outputs in input order.

    lane 1   batch 0 ------> batch 2 ----> batch 4
    lane 2   batch 1 -----> batch 3 ------> ...             one thread each; no lane waits for another

On a CPU two threads on one micro-batch wait for each other after every operation; one micro-batch on each core does not
(LOG.md: One micro-batch on each core). A single micro-batch gets all threads. The last digits of a float may depend on the
number of threads, so what must be repeated bit for bit (`export/roundtrip.py`) runs without lanes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import local

import numpy as np
from numpy.typing import NDArray

from distilora.batching.batches import plan_batches
from distilora.batching.outputs import placed
from distilora.batching.rows import Rows
from distilora.errors import ArtifactError
from distilora.inference.backends import Backend
from distilora.progress import Progress

Outputs = NDArray[np.float32]
AHEAD = 2  # micro-batches taken per lane: the one it computes, and its next


def run_rows(
    rows: Rows, backend: Backend, token_budget: int | None = None, label: str = "", lanes: bool = False
) -> Outputs:
    """Compute the outputs [G, ...] of all rows' examples, in input order whatever the micro-batches.

    `token_budget` None is the backend's; with `lanes` as many micro-batches run at once as the backend has lanes.
    Raises ValueError without rows, ArtifactError if an output is not finite.
    """
    batches = [
        batch for update in plan_batches(rows.group_lengths, token_budget or backend.token_budget) for batch in update
    ]
    if not batches:
        raise ValueError("no rows to run")
    outputs: Outputs | None = None
    width = min(backend.lanes, len(batches)) if lanes else 1
    with Progress(label, rows.groups) as bar, _computing(backend, width) as compute:
        for batch, part in zip(batches, compute(rows.take(batch) for batch in batches), strict=True):
            if not np.isfinite(part).all():
                raise ArtifactError(
                    "the model's outputs are not finite (NaN or infinity); predict in fp32, or train it again"
                )
            outputs = placed(outputs, rows.groups, batch, part)
            bar.add(len(batch))
    assert outputs is not None
    return outputs


@contextmanager
def _computing(backend: Backend, width: int) -> Iterator[Callable[[Iterable[Rows]], Iterator[Outputs]]]:
    """Yield a `map` from micro-batches to outputs, in order, on `width` threads; it reads at most AHEAD x width ahead."""
    if width == 1:
        yield lambda batches: map(backend.run, batches)
        return
    lane = local()

    def run_in_lane(rows: Rows) -> Outputs:
        if not hasattr(lane, "run"):
            lane.run = backend.lane()
        outputs: Outputs = lane.run(rows)
        return outputs

    def in_order(batches: Iterable[Rows]) -> Iterator[Outputs]:
        waiting: deque[Future[Outputs]] = deque()
        for batch in batches:
            waiting.append(pool.submit(run_in_lane, batch))
            if len(waiting) == AHEAD * width:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    pool = ThreadPoolExecutor(width)
    try:
        yield in_order
    finally:
        pool.shutdown(cancel_futures=True)
