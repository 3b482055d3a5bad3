"""Each text computed once, the right outputs whatever made room for what, and memory that does not grow."""

import random
import tracemalloc
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from distilora.data.examples import Example
from distilora.inference import output_cache
from distilora.inference.output_cache import CacheEntry, OutputCache


def outputs_of(text: str) -> np.ndarray:
    return np.asarray([float(text), float(text) / 2], np.float32)


class Stream:
    """Chunks through an `OutputCache` as `Predictor.answers` takes them: one is looked up before the last is computed."""

    def __init__(self) -> None:
        self.cache, self.computed = OutputCache(), Counter[str]()
        self.waiting: tuple[Sequence[str], list[CacheEntry], list[CacheEntry], list[Example]] | None = None

    def __call__(self, texts: Sequence[str]) -> None:
        last, self.waiting = self.waiting, (texts, *self.cache.look_up([Example((text,)) for text in texts]))
        if last is None:
            return
        texts, known, new, fresh = last
        for text, example in zip(new, fresh, strict=True):
            self.computed[example.texts[0]] += 1
            text.outputs, text.truncated = outputs_of(example.texts[0]), example.texts[0].endswith("7")
        for text, one in zip(texts, known, strict=True):
            assert np.array_equal(one.outputs, outputs_of(text))
            assert one.truncated == text.endswith("7")


def test_every_text_is_computed_once() -> None:
    stream, rng = Stream(), random.Random(0)
    for _ in range(60):
        stream([str(rng.randrange(2_000)) for _ in range(100)])
    assert set(stream.computed.values()) == {1}
    assert len(stream.computed) > 1_500


@pytest.mark.parametrize(("remembered", "largest"), [(64, 1 << 20), (65_536, 64 * 8)])
def test_outputs_are_right_when_few_are_kept(remembered: int, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_cache, "REMEMBERED", remembered)
    monkeypatch.setattr(output_cache, "LARGEST", largest)
    stream, rng = Stream(), random.Random(1)
    for _ in range(100):
        stream([str(rng.randrange(300)) for _ in range(rng.randrange(40))])
    assert max(stream.computed.values()) > 3  # not all could be kept,
    assert sum(stream.computed.values()) < 1_700  # of some 2,000; some were


def test_memory_does_not_grow_with_the_texts() -> None:
    stream, sizes = Stream(), []
    tracemalloc.start()
    try:
        for chunk in range(40):
            stream([str(chunk * 500 + i) for i in range(500)])
            stream.computed.clear()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[-1] - sizes[4] < 200_000  # 17,500 texts more; as Python objects, 7 MB
