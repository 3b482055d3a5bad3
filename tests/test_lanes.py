"""Lanes: several micro-batches at once give what one after the other gives, in order; whatever the split."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_reviews

from distilora.errors import ArtifactError
from distilora.lanes import run_rows
from distilora.predict import Predictor, load
from distilora.rows import Rows, rows_of

TEXTS = [text for text, _ in tiny_reviews(60, 8)]


@pytest.fixture(scope="module")
def predictor(finished: Path) -> Predictor:
    return load(finished, precision="fp32", device="cpu")


class Echo:
    """Answers each row with its first token, its threads noted."""

    lanes, token_budget, precision = 3, 4, "fp32"

    def __init__(self, bad: int = -1) -> None:
        self.bad, self.threads, self.ended = bad, set(), 0

    def run(self, rows: Rows) -> np.ndarray:
        self.threads.add(threading.get_ident())
        first = rows.ids[rows.offsets[:-1]].astype(np.float32)
        return np.where(first == self.bad, np.nan, first)[:, None]

    def lane(self) -> Callable[[Rows], np.ndarray]:
        self.meeting = getattr(self, "meeting", threading.Barrier(self.lanes))
        self.meeting.wait(10)
        return self.run

    def end_lanes(self) -> None:
        self.ended += 1


def test_outputs_are_in_input_order_and_lanes_work_at_once() -> None:
    rows = rows_of([[[i, *range(i % 4)]] for i in range(50)])
    for lanes, threads, ended in ((False, 1, 0), (True, 3, 1)):
        backend = Echo()
        assert run_rows(rows, backend, lanes=lanes)[:, 0].tolist() == list(range(50))
        assert (len(backend.threads), backend.ended) == (threads, ended)
    assert threading.get_ident() not in backend.threads


def test_a_failure_in_a_lane_is_raised_and_lanes_end() -> None:
    backend = Echo(bad=37)
    with pytest.raises(ArtifactError, match="not finite"):
        run_rows(rows_of([[[i]] for i in range(50)]), backend, lanes=True)
    assert backend.ended == 1
    with pytest.raises(ValueError, match="no rows"):
        run_rows(rows_of([]), backend, lanes=True)


def test_any_split_gives_the_same_answers(predictor: Predictor) -> None:
    rng = np.random.default_rng(4)
    wanted = predictor(TEXTS)
    predictor.backend.lanes = 2
    for _ in range(12):
        order = rng.permutation(len(TEXTS))
        places = np.sort(rng.choice(np.arange(1, len(TEXTS)), rng.integers(1, 12), replace=False))
        predictor.backend.token_budget = int(rng.choice([8, 40, 200, 4000]))
        for part in np.split(order, places):
            for place, answer in zip(part, predictor([TEXTS[i] for i in part]), strict=True):
                assert answer == pytest.approx(wanted[place], abs=1e-5)


def test_pytorch_has_its_threads_again(predictor: Predictor) -> None:
    before = torch.get_num_threads()
    predictor.backend.lanes, predictor.backend.token_budget = 2, 32
    predictor(TEXTS)
    assert torch.get_num_threads() == before
    seen = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [before]
