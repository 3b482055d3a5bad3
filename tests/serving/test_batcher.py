"""The queue: nothing admitted is lost, nobody waits behind another client's list, and what nobody wants is not computed."""

import gc
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from distilora.batching.rows import Rows, rows_of
from distilora.serving.batcher import MOST_INPUTS, Batcher, Work
from distilora.serving.limits import Limits
from distilora.serving.refusals import DeadlinePassed, Draining, Failed, Overloaded, TooLong, TooMany


class Recorder:
    """Engine that answers with the first token of each input, holds its lanes while `gate` is shut, and notes its batches."""

    lanes = 1

    def __init__(self, budget: int = 100, padded: bool = False) -> None:
        self.budget, self.padded = budget, padded
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)
        self.batches: list[list[int]] = []

    def lane(self) -> Callable[[Sequence[Rows], Sequence[Any]], list[Any]]:
        def compute(rows: Sequence[Rows], adapters: Sequence[Any]) -> list[Any]:
            first = [int(part.ids[0]) for part in rows]
            self.batches.append(first)
            self.begun.release()
            assert self.gate.wait(10)
            if -1 in first:
                raise RuntimeError("an input that the model cannot read")
            return [np.asarray([np.nan if number == -2 else number], np.float32) for number in first]

        return compute


def work(engine: Recorder, number: int, tokens: int = 10, adapter: Any = None) -> Work:
    return Work(engine, adapter, rows_of([[[number] + [0] * (tokens - 1)]]))


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    made = Batcher(Limits(lanes=1, waiting_tokens=1000, request_tokens=900, inputs=60))
    yield made
    made.close()


def held(batcher: Batcher, engine: Recorder) -> Any:
    """Hold the only lane with a first input."""
    engine.gate.clear()
    ticket = batcher.submit([work(engine, 0)], "holder")
    assert engine.begun.acquire(timeout=10)
    return ticket


def values(ticket: Any) -> list[float]:
    return [float(part[0]) for part in ticket.done.result(10)]


def test_outputs_come_in_the_order_of_the_inputs(batcher: Batcher) -> None:
    engine = Recorder()
    tickets = [batcher.submit([work(engine, 10 * t + i) for i in range(9)], f"client {t}") for t in range(4)]
    assert [values(ticket) for ticket in tickets] == [[10 * t + i for i in range(9)] for t in range(4)]
    assert batcher.depth == batcher.waiting_tokens == 0


def test_a_short_text_does_not_wait_for_another_clients_list(batcher: Batcher) -> None:
    engine = Recorder(budget=20)
    first = held(batcher, engine)
    long = batcher.submit([work(engine, 100 + i) for i in range(50)], "long list")
    short = batcher.submit([work(engine, 7)], "short")
    engine.gate.set()
    assert values(short) == [7]
    assert 7 in engine.batches[1]  # the first batch that was formed after it came
    assert values(long) == [100 + i for i in range(50)]
    assert values(first) == [0]


def test_clients_are_served_alike_in_tokens(batcher: Batcher) -> None:
    engine = Recorder(budget=10)
    held(batcher, engine)
    few = batcher.submit([work(engine, 100 + i, 10) for i in range(4)], "long texts")
    many = batcher.submit([work(engine, 200 + i, 5) for i in range(8)], "short texts")
    engine.gate.set()
    values(few), values(many)
    order = [number // 100 for batch in engine.batches[1:] for number in batch]
    shares = [(order[:n].count(1) * 10, order[:n].count(2) * 5) for n in range(len(order))]
    assert max(abs(one - other) for one, other in shares) <= 10


def test_a_client_that_rested_has_no_credit(batcher: Batcher) -> None:
    engine = Recorder(budget=10)
    values(batcher.submit([work(engine, i) for i in range(50)], "busy"))
    held(batcher, engine)
    busy = batcher.submit([work(engine, 100 + i) for i in range(10)], "busy")
    rested = batcher.submit([work(engine, 200 + i) for i in range(10)], "rested")
    engine.gate.set()
    values(busy), values(rested)
    order = [number // 100 for batch in engine.batches[-20:] for number in batch]
    assert 3 <= order[:10].count(1) <= 7


def test_a_batch_keeps_to_its_budget_and_a_longer_input_is_computed_alone(batcher: Batcher) -> None:
    packed, padded = Recorder(budget=100), Recorder(budget=100, padded=True)
    sizes = {1: 60, 2: 30, 3: 20, 4: 300, 5: 10}
    for engine in (packed, padded):
        held(batcher, engine)
        ticket = batcher.submit([work(engine, number, size) for number, size in sizes.items()], "client")
        engine.gate.set()
        assert values(ticket) == list(sizes)
    assert packed.batches[1:] == [[1, 2], [3], [4], [5]]
    assert padded.batches[1:] == [[1], [2, 3], [4], [5]]


def test_engines_are_not_mixed_and_both_are_served(batcher: Batcher) -> None:
    one, other = Recorder(), Recorder()
    held(batcher, one)
    tickets = [batcher.submit([work(engine, n) for n in (1, 2)], f"{n}") for n, engine in enumerate((one, other))]
    one.gate.set()
    assert [values(ticket) for ticket in tickets] == [[1, 2], [1, 2]]
    assert one.batches[1:] == other.batches == [[1, 2]]


def test_a_full_queue_refuses_a_request_whole(batcher: Batcher) -> None:
    engine = Recorder()
    held(batcher, engine)
    first = batcher.submit([work(engine, i, 100) for i in range(9)], "client")
    with pytest.raises(Overloaded, match="900 tokens wait and 1,000 may") as refusal:
        batcher.submit([work(engine, 50, 60), work(engine, 51, 60)], "another")
    assert refusal.value.status == 429
    assert refusal.value.retry_after is not None
    assert refusal.value.retry_after >= 1
    assert batcher.depth == 9
    fits = batcher.submit([work(engine, 52, 100)], "another")
    engine.gate.set()
    assert values(fits) == [52]
    assert len(values(first)) == 9
    assert not {50, 51} & {number for batch in engine.batches for number in batch}


def test_a_full_queue_refuses_before_anything_is_read_until_it_is_shorter(batcher: Batcher) -> None:
    engine = Recorder()
    held(batcher, engine)
    batcher.check_room("another")
    batcher.submit([work(engine, i, 100) for i in range(9)], "client")
    batcher.check_room("another")  # nobody was refused yet
    with pytest.raises(Overloaded):
        batcher.submit([work(engine, 50, 200)], "another")
    with pytest.raises(Overloaded, match="900 tokens wait and 1,000 may"):
        batcher.check_room("another")
    engine.gate.set()
    batcher.drain(10)
    batcher.check_room("another")


def test_a_request_too_large_for_the_rest_of_the_queue_closes_it_for_no_other(batcher: Batcher) -> None:
    engine = Recorder()
    held(batcher, engine)
    batcher.submit([work(engine, i, 100) for i in range(5)], "client")
    with pytest.raises(Overloaded):
        batcher.submit([work(engine, 50 + i, 100) for i in range(6)], "another")
    batcher.check_room("another")
    engine.gate.set()


def test_a_turn_that_would_come_too_late_is_refused_to_that_client_alone() -> None:
    batcher = Batcher(Limits(lanes=1, waiting_tokens=100_000, request_tokens=90_000, inputs=1000, timeout_ms=10_000))
    engine = Recorder()
    held(batcher, engine)
    rate = 2000  # tokens per second, before one was measured
    batcher.submit([work(engine, 1, 11 * rate)], "greedy", time.monotonic() + 10)
    for _ in range(2):
        with pytest.raises(Overloaded, match="would wait about 11 s, longer than it may; ask again later") as refusal:
            batcher.submit([work(engine, 2)], "greedy", time.monotonic() + 10)
        assert refusal.value.retry_after == 6
    with pytest.raises(Overloaded, match="would wait about 11 s"):
        batcher.check_room("greedy")
    batcher.check_room("another")
    short = batcher.submit([work(engine, 3)], "another", time.monotonic() + 10)
    with pytest.raises(Overloaded, match="would wait about 0 s"):
        batcher.submit([work(engine, 4)], "another", time.monotonic() - 1)
    batcher.check_room("another")  # its own impatience closes nothing
    engine.gate.set()
    assert values(short) == [3]
    batcher.close()


def test_what_could_never_be_admitted_is_told_so(batcher: Batcher) -> None:
    engine = Recorder()
    with pytest.raises(TooLong, match="901 tokens given, at most 900 wanted"):
        batcher.submit([work(engine, 1, 901)], "client")
    with pytest.raises(TooMany, match="61 given, at most 60 wanted"):
        batcher.submit([work(engine, 1)] * 61, "client")
    with pytest.raises(TooMany, match="none given"):
        batcher.submit([], "client").done.result(1)


def test_a_request_that_was_given_up_is_not_computed(batcher: Batcher) -> None:
    engine = Recorder()
    held(batcher, engine)
    gone = batcher.submit([work(engine, i) for i in range(1, 9)], "gone")
    stays = batcher.submit([work(engine, 99)], "stays")
    gone.cancel()
    assert (batcher.depth, batcher.waiting_tokens) == (1, 10)
    engine.gate.set()
    assert values(stays) == [99]
    assert {number for batch in engine.batches for number in batch} == {0, 99}


def test_a_deadline_that_passed_is_told_and_spoils_nothing(batcher: Batcher) -> None:
    engine = Recorder()
    held(batcher, engine)
    late = batcher.submit([work(engine, i) for i in (1, 2)], "client", time.monotonic() + 0.01)
    other = batcher.submit([work(engine, 3)], "client", time.monotonic() + 60)
    time.sleep(0.03)
    engine.gate.set()
    with pytest.raises(DeadlinePassed):
        late.done.result(10)
    assert values(other) == [3]
    assert {number for batch in engine.batches for number in batch} == {0, 3}


def test_an_input_on_which_the_model_fails_spoils_no_other(batcher: Batcher) -> None:
    engine = Recorder()
    held(batcher, engine)
    tickets = [batcher.submit([work(engine, n)], "client") for n in (1, -1, 2, -2, 3)]
    engine.gate.set()
    assert [values(tickets[i]) for i in (0, 2, 4)] == [[1], [2], [3]]
    with pytest.raises(Failed, match="failed on this input"):
        tickets[1].done.result(10)
    with pytest.raises(Failed, match="not finite"):
        tickets[3].done.result(10)


def test_draining_finishes_what_was_admitted(batcher: Batcher) -> None:
    engine = Recorder()
    held(batcher, engine)
    ticket = batcher.submit([work(engine, i) for i in range(1, 30)], "client")
    assert not batcher.drain(0.05)
    with pytest.raises(Draining):
        batcher.submit([work(engine, 1)], "client")
    engine.gate.set()
    assert batcher.drain(10)
    assert len(values(ticket)) == 29


def test_closing_ends_what_waits() -> None:
    batcher, engine = Batcher(Limits(lanes=1)), Recorder()
    first = held(batcher, engine)
    waiting = batcher.submit([work(engine, 5)], "client")
    threading.Timer(0.05, engine.gate.set).start()
    batcher.close()
    assert values(first) == [0]
    with pytest.raises(Draining):
        waiting.done.result(1)


def test_of_an_engine_that_is_gone_nothing_stays(batcher: Batcher) -> None:
    class Model(Recorder):
        def lane(self) -> Any:
            return recorder.lane()  # which holds the recorder, not the model

    recorder, engine = Recorder(), Model()
    values(batcher.submit([work(engine, 1)], "client"))
    reference = weakref.ref(engine)
    del engine
    for _ in range(100):
        gc.collect()
        if reference() is None:
            break
        time.sleep(0.01)
    assert reference() is None


def test_many_clients_at_once_lose_nothing() -> None:
    batcher, engines = Batcher(Limits(lanes=3, waiting_tokens=600)), [Recorder(50), Recorder(50, padded=True)]
    answered, refused, given_up = [], [], []

    def client(number: int) -> None:
        rng = random.Random(number)
        for request in range(60):
            numbers = [rng.randrange(1, 1000) for _ in range(rng.randrange(1, 6))]
            works = [work(rng.choice(engines), n, rng.randrange(1, 40)) for n in numbers]
            try:
                ticket = batcher.submit(works, f"client {number % 5}")
            except Overloaded:
                refused.append((number, request))
                continue
            if rng.random() < 0.1:
                ticket.cancel()
                given_up.append((number, request))
            else:
                assert values(ticket) == numbers
                answered.append((number, request))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answered) + len(refused) + len(given_up) == 12 * 60
    assert answered
    assert batcher.drain(10)
    assert batcher.depth == batcher.waiting_tokens == 0
    batcher.close()


def test_what_is_cut_off_fails_whether_it_waits_or_is_computed(batcher: Batcher) -> None:
    engine = Recorder()
    held(batcher, engine)
    waits = batcher.submit([work(engine, 1)], "client")
    batcher.cut_off()
    with pytest.raises(Draining):
        waits.done.result(1)
    with pytest.raises(Draining):
        batcher.submit([work(engine, 2)], "client")
    engine.gate.set()


def test_a_batch_has_so_many_inputs_at_most(batcher: Batcher) -> None:
    engine = Recorder(budget=100)
    first = held(batcher, engine)
    rest = batcher.submit([work(engine, number + 1, tokens=2) for number in range(40)], "a")
    engine.gate.set()
    first.done.result(10)
    rest.done.result(10)
    assert [len(batch) for batch in engine.batches] == [1, MOST_INPUTS, 40 - MOST_INPUTS]
