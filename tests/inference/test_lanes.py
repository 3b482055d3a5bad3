"""Lanes: several micro-batches at once give what one after the other gives, in order; whatever the split."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support.tiny import tiny_reviews

from distilora.batching.rows import Rows, rows_of
from distilora.errors import ArtifactError
from distilora.inference import predictor as predict
from distilora.inference.backends import torch_backend
from distilora.inference.lanes import Lanes, run_rows
from distilora.inference.predictor import Predictor

TEXTS = [text for text, _ in tiny_reviews(60, 8)]


class Echo:
    """Answers each row with its first token, its threads noted."""

    lanes, token_budget, precision = 3, 4, "fp32"

    def __init__(self, bad: int = -1) -> None:
        self.bad, self.threads = bad, set()

    def run(self, rows: Rows) -> np.ndarray:
        self.threads.add(threading.get_ident())
        first = rows.ids[rows.offsets[:-1]].astype(np.float32)
        return np.where(first == self.bad, np.nan, first)[:, None]

    def lane(self) -> Callable[[Rows], np.ndarray]:
        self.meeting = getattr(self, "meeting", threading.Barrier(self.lanes))
        self.meeting.wait(10)
        return self.run


def test_outputs_are_in_input_order_and_lanes_work_at_once() -> None:
    rows = rows_of([[[i, *range(i % 4)]] for i in range(50)])
    for lanes, threads in ((False, 1), (True, 3)):
        backend = Echo()
        assert run_rows(rows, backend, lanes=lanes)[:, 0].tolist() == list(range(50))
        assert len(backend.threads) == threads
    assert threading.get_ident() not in backend.threads


def test_a_failure_in_a_lane_is_raised() -> None:
    before = threading.active_count()
    with pytest.raises(ArtifactError, match="not finite"):
        run_rows(rows_of([[[i]] for i in range(50)]), Echo(bad=37), lanes=True)
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="no rows"):
        run_rows(rows_of([]), Echo(), lanes=True)


def test_few_micro_batches_are_taken_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus lies in a mapped file: what is taken of it is in memory, so nothing is taken long before its turn."""
    rows, taken, finished, most = rows_of([[[i]] for i in range(200)]), 0, 0, 0
    take, lock = Rows.take, threading.Lock()

    def counted(self: Rows, groups: np.ndarray) -> Rows:
        nonlocal taken, most
        with lock:
            taken += 1
            most = max(most, taken - finished)
        return take(self, groups)

    class Slow(Echo):
        def run(self, rows: Rows) -> np.ndarray:
            nonlocal finished
            outputs = super().run(rows)
            with lock:
                finished += 1
            return outputs

    monkeypatch.setattr(Rows, "take", counted)
    outputs = run_rows(rows, Slow(), lanes=True)
    assert outputs[:, 0].tolist() == list(range(200))
    assert (taken, finished) == (50, 50)
    assert most <= 3  # of 50, one in each lane


def test_rows_queued_behind_others_need_no_one_to_collect_those() -> None:
    class Counting(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.opened, self.all_seen, self.lock = 0, 0, threading.Event(), threading.Lock()

        def lane(self) -> Callable[[Rows], np.ndarray]:
            with self.lock:
                self.opened += 1
            return super().lane()

        def run(self, rows: Rows) -> np.ndarray:
            outputs = super().run(rows)
            with self.lock:
                self.seen += rows.groups
                if self.seen == 80:
                    self.all_seen.set()
            return outputs

    backend = Counting()
    with Lanes(backend) as lanes:
        first, second = (lanes.start(rows_of([[[start + i]] for i in range(40)])) for start in (0, 40))
        assert backend.all_seen.wait(10)  # nobody has asked for outputs yet
        assert second.outputs()[:, 0].tolist() == list(range(40, 80))
        assert first.outputs()[:, 0].tolist() == list(range(40))
        assert backend.opened == 3  # each lane once for both
        alone = lanes.start(rows_of([[[7]]]))
        backend.threads.clear()
        assert alone.outputs()[:, 0].tolist() == [7]
    assert backend.threads == {threading.get_ident()}  # a single micro-batch has all cores


def test_a_stream_keeps_its_lanes_from_chunk_to_chunk(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "STREAM", 12)
    monkeypatch.setattr(torch_backend.TorchBackend, "lanes", 2)
    predictor.backend.token_budget = 16
    opened, lane = [], predictor.backend.lane
    monkeypatch.setattr(predictor.backend, "lane", lambda: opened.append(1) or lane())
    expected = [predictor(text)["label"] for text in TEXTS]
    assert [answer["label"] for answer in predictor(iter(TEXTS))] == expected
    assert 1 <= len(opened) <= 2  # of five chunks


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of PyTorch's threads may be changed."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_any_split_gives_the_same_answers(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    expected = predictor(TEXTS)
    monkeypatch.setattr(torch_backend.TorchBackend, "lanes", 2)
    for _ in range(12):
        order = rng.permutation(len(TEXTS))
        places = np.sort(rng.choice(np.arange(1, len(TEXTS)), rng.integers(1, 12), replace=False))
        predictor.backend.token_budget = int(rng.choice([8, 40, 200, 4000]))
        for part in np.split(order, places):
            for place, answer in zip(part, predictor([TEXTS[i] for i in part]), strict=True):
                assert answer == pytest.approx(expected[place], abs=1e-5)


def of_a_thread(do: Callable[[], object]) -> object:
    """What a thread that PyTorch has not met gives."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(do).result()


@pytest.mark.usefixtures("threads")
def test_pytorch_keeps_its_threads(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's number, also one set after loading, and that of threads to come: after lanes, and while they compute."""
    predictor.backend.token_budget = 32
    run, within = predictor.backend.run, []

    def watched(rows: Rows) -> np.ndarray:
        with torch_backend._lane_starts:  # between the beginnings of two lanes
            within.append((torch.get_num_threads(), of_a_thread(torch.get_num_threads)))
        return run(rows)

    monkeypatch.setattr(predictor.backend, "run", watched)
    for own, to_come in ((3, 3), (2, 5)):
        torch.set_num_threads(own)
        of_a_thread(lambda number=to_come: torch.set_num_threads(number))
        predictor(TEXTS)
        assert (torch.get_num_threads(), of_a_thread(torch.get_num_threads)) == (own, to_come)
        assert set(within) == {(1, to_come)}  # a lane's own, and that of others beside it
        within.clear()
    torch.set_num_threads(1)
    predictor(TEXTS)
    assert set(within) == {(1, 1)}  # one lane is none
