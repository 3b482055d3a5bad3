"""Decides what is computed next: requests wait as single inputs, and a lane that is free takes the next batch at once.

    client A   a1 a2 a3 a4 ...        the next input is one of the client that has been served least, in tokens
    client B   b1                     -> b1 is in the next batch, however long A's list is
               a batch is filled, from the same engine, up to a budget of tokens, with MOST_INPUTS at most

Nothing waits for company. A request is admitted whole or refused, and what was admitted is computed unless its client goes or its
deadline passes before its turn. A client whose turn would come later than any request may wait is refused at once, too.

Served tokens count from the moment at which a client comes back (start-time fair queuing, Goyal et al., SIGCOMM 1996), so that a
rest earns no credit.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
from numpy.typing import NDArray

from distilora.batching.rows import Rows
from distilora.hardware import threads
from distilora.serving.engines import Compute, Engine
from distilora.serving.limits import Limits
from distilora.serving.refusals import DeadlinePassed, Failed, Overloaded, TooLong, TooMany, stopped

Outputs = NDArray[np.float32]
SMOOTHING = 0.2  # share of the newest batch in the measured rate
FIRST_RATE = 2_000.0  # tokens per second of a lane before one was measured
LONGEST_RETRY = 60  # seconds
MOST_INPUTS = 32  # of a batch: products of every new number of inputs are compiled and kept, up to a thousand of them in each lane
RELIEF = 1 / 8  # of a full queue must be computed before requests are read again


@dataclass(frozen=True)
class Work:
    """An input to compute: its rows, one group, the engine, and the adapter on it."""

    engine: Engine
    adapter: Any
    rows: Rows

    @property
    def tokens(self) -> int:
        """Tokens of the input."""
        return len(self.rows.ids)


class Ticket:
    """A request that was admitted: `done` has the outputs of its inputs, in order."""

    def __init__(self, batcher: "Batcher", works: Sequence[Work], deadline: float | None) -> None:
        self.done: Future[list[Outputs]] = Future()
        self.deadline = deadline
        self.arrived = time.monotonic()
        self.begun: float | None = None
        self.ended: float | None = None
        self._batcher, self._left = batcher, len(works)
        self._outputs: list[Outputs | None] = [None] * len(works)

    @property
    def waited_s(self) -> float:
        """Seconds until its first input was begun."""
        return (self.begun or time.monotonic()) - self.arrived

    @property
    def computed_s(self) -> float:
        """Seconds from there to its last output."""
        return 0.0 if self.begun is None else (self.ended or time.monotonic()) - self.begun

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.done.done()

    def cancel(self) -> None:
        """Give the request up: what was not begun is not computed."""
        self.done.cancel()
        self._batcher.forget(self)

    def put(self, number: int, outputs: Outputs) -> None:
        """Take the outputs of an input; with the last one the request is done. The caller holds the batcher's lock."""
        self._outputs[number] = outputs
        self._left -= 1
        if not self._left:
            self.ended = time.monotonic()
            _settle(self.done, [part for part in self._outputs if part is not None])

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        self.ended = time.monotonic()
        _settle(self.done, error)


@dataclass
class _Client:
    """What a client waits for, in order, and the tokens it was served, on the clock of all clients."""

    waiting: deque["_Item"] = field(default_factory=deque)
    tokens: int = 0  # of what waits
    served: float = 0.0
    full_at: int | None = None  # `tokens` when it was last told that its turn comes too late


@dataclass(frozen=True)
class _Item:
    ticket: Ticket
    number: int
    work: Work
    client: str


class Batcher:
    """Queue of all requests, with a thread for each lane."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Condition()
        self._clients: dict[str, _Client] = {}
        self._tickets: WeakSet[Ticket] = WeakSet()
        self._clock = 0.0  # served tokens of the client that was served last
        self._running = 0
        self._rate = FIRST_RATE
        self._draining = self._closed = False
        self._full = False  # whether a request was told that there is no room
        self.depth = self.waiting_tokens = 0
        self.batch_sizes: deque[tuple[int, int]] = deque(maxlen=1000)  # inputs and tokens of the latest batches
        count = limits.lanes or threads()
        self._lanes = [threading.Thread(target=self._work, name=f"lane-{n}", daemon=True) for n in range(count)]
        for lane in self._lanes:
            lane.start()

    def submit(self, works: Sequence[Work], client: str, deadline: float | None = None) -> Ticket:
        """Admit a request whole.

        Args:
            client: what is treated as one; clients are served in turn.
            deadline: on the clock of time.monotonic; None: none.

        Raises Draining, TooMany, TooLong where it could never be admitted, Overloaded where it may be later.
        """
        tokens = sum(work.tokens for work in works)
        if len(works) > self.limits.inputs:
            raise TooMany(
                f"inputs: {len(works):,} given, at most {self.limits.inputs:,} wanted (limit inputs); send several requests",
                "inputs",
            )
        most, limit = self.limits.most_tokens
        if tokens > most:
            remedy = "send several requests" if len(works) > 1 else "shorten it"
            raise TooLong(
                f"inputs: {tokens:,} tokens given, at most {most:,} wanted (limit {limit}); {remedy}", "inputs"
            )
        ticket = Ticket(self, works, deadline)
        if not works:
            ticket.fail(TooMany("inputs: none given; give one at least"))
            return ticket
        with self._lock:
            if self._draining:
                raise stopped()
            if self.waiting_tokens + tokens > self.limits.waiting_tokens:
                self._full = True
                raise self._overloaded()
            own = self._clients.get(client) or _Client()
            wait = self._wait_s(own)
            if wait > self.limits.timeout_ms / 1000:
                own.full_at = own.tokens
                raise self._too_late(wait)
            if deadline is not None and wait > max(deadline - ticket.arrived, 0):
                raise self._too_late(wait)
            self._clients[client] = own
            self._tickets.add(ticket)
            if not own.waiting:
                own.served = max(own.served, self._clock)
            own.waiting.extend(_Item(ticket, number, work, client) for number, work in enumerate(works))
            self.depth += len(works)
            self.waiting_tokens += tokens
            own.tokens += tokens
            self._lock.notify_all()
        return ticket

    def check_room(self, client: str) -> None:
        """Raise Overloaded while there is no room, before anything was spent on a request of the client.

        That is so from the first request that found none until RELIEF of what may wait, or of what the client waited for, has
        been computed: what would be read and tokenised to be refused takes the cores from what was admitted.
        """
        with self._lock:
            own = self._clients.get(client)
            if own is not None and own.full_at is not None:
                if own.tokens > (1 - RELIEF) * own.full_at:
                    raise self._too_late(self._wait_s(own))
                own.full_at = None
            self._full = self._full and self.waiting_tokens > (1 - RELIEF) * self.limits.waiting_tokens
            if self._full:
                raise self._overloaded()

    def _wait_s(self, own: _Client) -> float:
        """Estimate after how many seconds a client's next input has its turn: clients are served alike."""
        others = sum(1 for client in self._clients.values() if client.waiting and client is not own)
        return min(self.waiting_tokens, own.tokens * (others + 1)) / (self._rate * len(self._lanes))

    def _overloaded(self) -> Overloaded:
        seconds = self.waiting_tokens / (self._rate * len(self._lanes))
        return Overloaded(
            f"{self.waiting_tokens:,} tokens wait and {self.limits.waiting_tokens:,} may (limit waiting_tokens); ask again later",
            retry_after=max(1, min(LONGEST_RETRY, math.ceil(seconds))),
        )

    @staticmethod
    def _too_late(wait: float) -> Overloaded:
        return Overloaded(
            f"the request would wait about {wait:.0f} s, longer than it may; ask again later, or allow more time (timeout_ms)",
            retry_after=max(1, min(LONGEST_RETRY, math.ceil(wait / 2))),
        )

    def forget(self, ticket: Ticket) -> None:
        """Take a request's waiting inputs out of the queue."""
        with self._lock:
            for client in self._clients.values():
                kept = deque(item for item in client.waiting if item.ticket is not ticket)
                if len(kept) < len(client.waiting):
                    self.depth -= len(client.waiting) - len(kept)
                    tokens = sum(item.work.tokens for item in kept)
                    self.waiting_tokens -= client.tokens - tokens
                    client.waiting, client.tokens = kept, tokens
            self._lock.notify_all()

    @property
    def draining(self) -> bool:
        """Whether no more requests are admitted."""
        return self._draining

    def drain(self, seconds: float) -> bool:
        """Admit no more requests; return whether all that were admitted ended within so many seconds."""
        with self._lock:
            self._draining = True
            return self._lock.wait_for(lambda: not self.depth and not self._running, seconds)

    def cut_off(self) -> None:
        """Admit no more requests; those that have not ended fail with Draining, also while they are computed."""
        with self._lock:
            self._draining = True
            for ticket in list(self._tickets):
                ticket.fail(stopped())
            self._lock.notify_all()

    def close(self) -> None:
        """Stop the lanes after the batches that they compute; what waits fails with Draining."""
        with self._lock:
            self._draining = self._closed = True
            for client in self._clients.values():
                while client.waiting:
                    client.waiting.popleft().ticket.fail(stopped())
                client.tokens = 0
            self.depth = self.waiting_tokens = 0
            self._lock.notify_all()
        for lane in self._lanes:
            lane.join()

    def _work(self) -> None:
        """Compute batches until the batcher is closed: the life of a lane."""
        computes: WeakKeyDictionary[Engine, Compute] = WeakKeyDictionary()  # of models that were removed nothing stays
        while self._compute_next(computes):
            pass

    def _compute_next(self, computes: "WeakKeyDictionary[Engine, Compute]") -> bool:
        """Wait for a batch and compute it; return False if the batcher was closed."""
        with self._lock:
            self._lock.wait_for(lambda: bool(self.depth) or self._closed)
            if self._closed:
                return False
            batch = self._take()
            if not batch:
                return True
            self._running += 1
        started = time.monotonic()
        results = _computed(computes, batch)
        seconds = max(time.monotonic() - started, 1e-6)
        with self._lock:
            tokens = sum(item.work.tokens for item in batch)
            self._rate += SMOOTHING * (tokens / seconds - self._rate)
            self.batch_sizes.append((len(batch), tokens))
            for item, result in zip(batch, results, strict=True):
                if isinstance(result, Exception):
                    item.ticket.fail(result)
                else:
                    item.ticket.put(item.number, result)
            self._running -= 1
            self._lock.notify_all()
        return True

    def _take(self) -> list[_Item]:
        """Take the next batch out of the queue; [] if nothing that waits is wanted any more. The caller holds the lock."""
        batch: list[_Item] = []
        tokens = longest = 0
        passed: set[str] = set()  # clients whose next input does not go into this batch
        share = self.waiting_tokens / (len(self._lanes) - self._running)  # what is little is divided among idle lanes
        while True:
            waiting = [(c.served, name) for name, c in self._clients.items() if c.waiting and name not in passed]
            if not waiting:
                break
            served, name = min(waiting)
            client = self._clients[name]
            item = client.waiting[0]
            if self._unwanted(item):
                self._pop(client)
                continue
            engine, size = item.work.engine, item.work.tokens
            if batch:
                other = engine is not batch[0].work.engine
                together = (len(batch) + 1) * max(longest, size) if engine.padded else tokens + size
                if (
                    other
                    or len(batch) == MOST_INPUTS
                    or tokens >= share
                    or together > min(engine.budget, self.limits.batch_tokens)
                ):
                    passed.add(name)
                    continue
            self._pop(client)
            client.served += size
            self._clock = max(self._clock, served)
            item.ticket.begun = item.ticket.begun or time.monotonic()
            batch.append(item)
            tokens, longest = tokens + size, max(longest, size)
        for name in [
            name for name, client in self._clients.items() if not client.waiting and client.served <= self._clock
        ]:
            del self._clients[name]
        return batch

    def _unwanted(self, item: _Item) -> bool:
        if item.ticket.over:
            return True
        if item.ticket.deadline is None or time.monotonic() < item.ticket.deadline:
            return False
        item.ticket.fail(
            DeadlinePassed("the deadline passed before the request's turn; ask again, or allow more time (timeout_ms)")
        )
        return True

    def _pop(self, client: _Client) -> None:
        item = client.waiting.popleft()
        self.depth -= 1
        self.waiting_tokens -= item.work.tokens
        client.tokens -= item.work.tokens
        if not self.depth:
            self._lock.notify_all()


def _computed(computes: "WeakKeyDictionary[Engine, Compute]", batch: Sequence[_Item]) -> list[Outputs | Exception]:
    """Compute a batch; if that fails, each input alone, so that one cannot spoil the others."""
    engine = batch[0].work.engine
    try:
        if engine not in computes:
            computes[engine] = engine.lane()
        outputs = computes[engine]([item.work.rows for item in batch], [item.work.adapter for item in batch])
    except Exception as error:
        if len(batch) == 1:
            failed = Failed("the model failed on this input")
            failed.__cause__ = error
            return [failed]
        return [result for item in batch for result in _computed(computes, [item])]
    return [
        part
        if np.isfinite(part).all()
        else Failed("the model's outputs are not finite; predict in fp32, or train it again")
        for part in outputs
    ]


def _settle(done: "Future[list[Outputs]]", result: list[Outputs] | Exception) -> None:
    """Give a request its outputs, or its error, unless it was given up meanwhile."""
    try:
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)
    except InvalidStateError:
        pass
