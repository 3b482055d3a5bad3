"""The service that all routes share: models, queue, keys, limits and phase; and how inputs of a request become outputs.

serving     requests are answered
leaving     so they are, but /readyz says no, so that no more are sent here
draining    new ones are refused; what was accepted is finished, or, after the time for that, refused as well
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from starlette.requests import Request

from distilora.serving.batcher import Batcher, Outputs, Ticket
from distilora.serving.keys import Keys
from distilora.serving.limits import Limits
from distilora.serving.logs import log
from distilora.serving.measures import Measures
from distilora.serving.pool import Model, Pool, Prepared
from distilora.serving.refusals import ClientGone, DeadlinePassed, Overloaded, stopped
from distilora.serving.traces import Traces

T = TypeVar("T")
ASIDE = 4_000  # characters from which on a text is read in another thread: the event loop would stand still for milliseconds
LARGE = ASIDE + 1  # for work that is never quick
EXPLAINERS, MOST_EXPLAINING = 4, 16  # explanations at once, and those that wait, too
READERS = 2  # such threads
MOST_READING = 256  # requests that wait for one of them
MOST_FLYING = 512  # requests that are read and answered at once
CUT_S = 0.5  # for telling clients that they were cut off
PROBE_S = 5.0  # for a forward pass; a service that takes longer is not ready


@dataclass
class Call:
    """One request on its way through the service."""

    request_id: str
    client: str = ""
    arrived: float = field(default_factory=time.monotonic)
    model: str | None = None
    inputs: int = 0
    tokens: int = 0
    characters: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # by stage

    def add(self, stage: str, seconds: float) -> None:
        """Add to the time of a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass(frozen=True)
class Computed:
    """Inputs of a request with their outputs."""

    model: Model
    prepared: list[Prepared]
    outputs: list[Outputs]
    tokens: int
    size: int  # characters

    def answers(self) -> list[dict[str, Any]]:
        """Return the answers, as a Predictor gives them."""
        return self.model.answers(self.outputs, self.prepared)

    def logits(self) -> Outputs:
        """Return the calibrated logits, [N, ...]."""
        return self.model.logits(self.outputs, self.prepared)


class Service:
    """What is served, under which limits, to whom."""

    def __init__(
        self, pool: Pool, limits: Limits, keys: Keys | None = None, admin_keys: Keys | None = None,
        batcher: Batcher | None = None, origins: Sequence[str] = (), log_requests: bool = True,
        corrections: bool = False, on_ray: bool = False, traces: Traces | None = None,
    ) -> None:  # fmt: skip
        self.pool, self.limits = pool, limits
        self.batcher = batcher or Batcher(limits)
        self.keys, self.admin_keys = keys or Keys(), admin_keys or Keys()
        self.origins, self.log_requests = tuple(origins), log_requests
        self.corrections = corrections  # whether a route keeps them
        self.on_ray = (
            on_ray  # as a replica: its measures would pass for everybody's, and Ray's proxy tells a request's id
        )
        self.measures, self.traces = Measures(), traces
        self.phase: Literal["serving", "leaving", "draining"] = "serving"
        self.cut = False  # whether what was accepted is refused, too
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reading = 0
        self._explaining = 0
        self._explainers = ThreadPoolExecutor(EXPLAINERS, "explainer")
        self._readers = ThreadPoolExecutor(READERS, "reader")
        self._prober = ThreadPoolExecutor(1, "prober")
        self._probe: asyncio.Future[bool] | None = None

    def deadline(self, call: Call, timeout_ms: int | None = None) -> float:
        """Return when an answer would be too late, on the clock of time.monotonic."""
        most = self.limits.timeout_ms
        return call.arrived + min(timeout_ms or most, most) / 1000

    async def aside(self, size: int, work: Callable[..., T], *args: Any) -> T:
        """Do work on so many characters: at once where they are few, else in a thread. Raises Overloaded."""
        if size <= ASIDE:
            return work(*args)
        if self._reading >= MOST_READING:
            raise Overloaded(f"{self._reading} requests wait to be read; ask again later", retry_after=1)
        self._reading += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, work, *args)
        finally:
            self._reading -= 1

    async def compute(
        self, request: Request, model: Model, inputs: Sequence[str | Mapping[str, Any]], deadline: float,
        watched: bool = True, places: Sequence[Sequence[str]] | None = None,
    ) -> Computed:  # fmt: skip
        """Compute the outputs of a request's inputs: all of them, or none.

        Args:
            watched: whether the client's hanging up ends it; the body must have been read.
            places: fields that the parts of each input stand in, for messages.

        Raises Invalid, TooLong and the like for what cannot be admitted, Overloaded, DeadlinePassed, Draining, Failed, ClientGone.
        """
        call = call_of(request)
        begun = time.monotonic()
        size = sum(sum(map(len, one.values())) if isinstance(one, Mapping) else len(one) for one in inputs)
        prepared = await self.aside(size, model.prepare, inputs, places)
        call.add("tokenise", time.monotonic() - begun)
        works = model.works(prepared)
        tokens = sum(work.tokens for work in works)
        ticket = self.batcher.submit(works, call.client, deadline)
        try:
            outputs = await finished(ticket, deadline, request.receive if watched else None)
        finally:
            call.add("queue", ticket.waited_s)
            call.add("compute", ticket.computed_s)
        call.model, call.inputs, call.tokens = model.name, call.inputs + len(inputs), call.tokens + tokens
        call.characters += size
        self.measures.computed(model.name, len(inputs), tokens, sum(item.truncated for item in prepared))
        return Computed(model, prepared, outputs, tokens, size)

    async def explain(self, work: Callable[[], T]) -> T:
        """Do the work of an explanation, which waits for answers, in a thread of its own. Raises Overloaded."""
        if self._explaining >= MOST_EXPLAINING:
            raise Overloaded(f"{self._explaining} explanations are being computed; ask again later", retry_after=2)
        self._explaining += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._explainers, work)
        finally:
            self._explaining -= 1

    async def ready(self) -> bool:
        """Tell whether requests are welcome: the service is not being stopped, and is sound, as it tells in time."""
        if self.phase != "serving":
            return False
        try:
            return await asyncio.wait_for(self.sound(), PROBE_S)
        except TimeoutError:
            return False

    async def sound(self) -> bool:
        """Tell whether a real forward pass, at most 5 s old, gave what it should."""
        if self._probe is None or self._probe.done():
            self._probe = asyncio.get_running_loop().run_in_executor(self._prober, self.pool.alive)
        return await asyncio.shield(self._probe)

    async def stop(self, grace: float, seconds: float) -> bool:
        """Stop as an orchestrator wants it; return whether everything that was accepted was answered in so many seconds."""
        begun = time.monotonic()
        self.phase = "leaving"
        log(logging.INFO, "leaving", grace_s=grace)
        await asyncio.sleep(grace)
        self.phase = "draining"
        log(logging.INFO, "draining", requests=self.flying, inputs=self.batcher.depth)
        await self._all_left(begun + seconds)
        left = max(seconds - (time.monotonic() - begun), 0.0)
        drained = await asyncio.get_running_loop().run_in_executor(None, self.batcher.drain, left)
        if not drained or self.flying:
            log(logging.WARNING, "cut off", requests=self.flying, inputs=self.batcher.depth)
            await self._cut_off()
            return False
        return True

    async def _cut_off(self) -> None:
        """Fail what waits and what is computed; then cancel what does not end by that, as a request whose body is awaited."""
        self.cut = True
        self.batcher.cut_off()
        await self._all_left(time.monotonic() + CUT_S)
        for task in list(self._tasks):
            task.get_loop().call_soon_threadsafe(task.cancel)  # a replica stops from a thread of its own
        await self._all_left(time.monotonic() + CUT_S)

    async def _all_left(self, until: float) -> None:
        """Wait until no request is being answered, or until that moment."""
        while self.flying and time.monotonic() < until:
            await asyncio.sleep(0.02)

    @property
    def flying(self) -> int:
        """Requests that are being answered."""
        return len(self._tasks)

    def enter(self, task: "asyncio.Task[Any]") -> None:
        """Count a request in, by the task that answers it. Raises Draining, Overloaded."""
        if self.phase == "draining":
            raise stopped()
        if self.flying >= MOST_FLYING:
            raise Overloaded(f"{self.flying} requests are being answered; ask again later", retry_after=1)
        self._tasks.add(task)

    def leave(self, task: "asyncio.Task[Any]") -> None:
        """Count a request out, if it was counted in."""
        self._tasks.discard(task)

    def close(self) -> None:
        """Stop all threads."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._explainers.shutdown(wait=False, cancel_futures=True)
        self._prober.shutdown(wait=False, cancel_futures=True)
        self.batcher.close()
        if self.traces:
            self.traces.close()


def call_of(request: Request) -> Call:
    """Return what is known of a request."""
    call: Call = request.scope["distilora.call"]
    return call


async def finished(ticket: Ticket, deadline: float, receive: Callable[[], Awaitable[Any]] | None) -> list[Outputs]:
    """Wait for the outputs of a ticket, which is given up at the deadline, or when the client hangs up.

    Raises DeadlinePassed, ClientGone, and whatever the ticket failed with.
    """
    done = asyncio.wrap_future(ticket.done)
    gone = asyncio.ensure_future(hung_up(receive)) if receive else None
    both: list[asyncio.Future[Any]] = [done, gone] if gone else [done]
    try:
        left = max(deadline - time.monotonic(), 0)
        await asyncio.wait(both, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            return done.result()
        if gone and gone.done():
            raise ClientGone("the client hung up")
        raise DeadlinePassed("the answer was not ready in time; ask again, or allow more time (timeout_ms)")
    finally:
        if gone:
            gone.cancel()
        if not done.done():
            ticket.cancel()
            done.cancel()


async def hung_up(receive: Callable[[], Awaitable[Any]]) -> None:
    """Wait until the client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
