"""Runs rows through a backend in planned micro-batches, several at a time where there are cores; outputs in input order.

    lane 1   batch 0 ------> batch 2 ----> batch 4
    lane 2   batch 1 -----> batch 3 ------> ...             one thread each; no lane waits for another

On a CPU two threads on one micro-batch wait for each other after every operation; one micro-batch on each core does not
(LOG.md: One micro-batch on each core). A single micro-batch gets all threads. The last digits of a float may depend on the
number of threads, so what must be repeated bit for bit (`export/roundtrip.py`) runs without lanes.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from threading import local
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from distilora.batching.batches import plan_batches
from distilora.batching.outputs import placed
from distilora.batching.rows import Rows
from distilora.errors import ArtifactError
from distilora.inference.backends import Backend
from distilora.progress import Progress

Outputs = NDArray[np.float32]


class Lanes:
    """Lanes of a backend: `start` queues rows behind those that are computed, so that no lane waits between two of them."""

    def __init__(self, backend: Backend, token_budget: int | None = None) -> None:
        self.backend, self.token_budget = backend, token_budget or backend.token_budget
        self._pool = ThreadPoolExecutor(backend.lanes) if backend.lanes > 1 else None
        self._lane = local()

    def __enter__(self) -> "Lanes":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what has not begun, and wait for what has."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def start(self, rows: Rows) -> "Started":
        """Queue the micro-batches of all rows; a single one waits for `Started.outputs`, and gets all threads."""
        batches = [batch for update in plan_batches(rows.group_lengths, self.token_budget) for batch in update]
        if self._pool is None or len(batches) == 1:
            return Started(rows, batches, None, self.backend)
        return Started(rows, batches, [self._pool.submit(self._run, rows, batch) for batch in batches], self.backend)

    def _run(self, rows: Rows, batch: NDArray[np.int64]) -> Outputs:
        if not hasattr(self._lane, "run"):
            self._lane.run = self.backend.lane()
        outputs: Outputs = self._lane.run(rows.take(batch))  # taken now: a corpus may lie in a mapped file
        return outputs


class Started:
    """Rows whose micro-batches are queued in lanes, or, without lanes, computed when their outputs are asked for."""

    def __init__(
        self, rows: Rows, batches: list[NDArray[np.int64]], running: list[Future[Outputs]] | None, backend: Backend
    ) -> None:
        self._rows, self._batches, self._running, self._backend = rows, batches, running, backend

    def outputs(self, label: str = "") -> Outputs:
        """Wait for the outputs of all examples, [G, ...], in input order.

        Raises ValueError without rows, ArtifactError if an output is not finite.
        """
        if not self._batches:
            raise ValueError("no rows to run")
        outputs: Outputs | None = None
        with Progress(label, self._rows.groups) as bar:
            for number, batch in enumerate(self._batches):
                part = (
                    self._backend.run(self._rows.take(batch))
                    if self._running is None
                    else self._running[number].result()
                )
                if not np.isfinite(part).all():
                    raise ArtifactError(
                        "the model's outputs are not finite (NaN or infinity); predict in fp32, or train it again"
                    )
                outputs = placed(outputs, self._rows.groups, batch, part)
                bar.add(len(batch))
        assert outputs is not None
        return outputs


def run_rows(
    rows: Rows, backend: Backend, token_budget: int | None = None, label: str = "", lanes: bool = False
) -> Outputs:
    """Compute the outputs [G, ...] of all rows' examples, in input order whatever the micro-batches.

    `token_budget` None is the backend's; with `lanes` as many micro-batches run at once as the backend has lanes.
    Raises ValueError without rows, ArtifactError if an output is not finite.
    """
    if not lanes:
        batches = plan_batches(rows.group_lengths, token_budget or backend.token_budget)
        return Started(rows, [batch for update in batches for batch in update], None, backend).outputs(label)
    with Lanes(backend, token_budget) as running:
        return running.start(rows).outputs(label)
