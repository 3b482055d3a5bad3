"""Wilson's interval: published values, the ends, and what has no interval."""

import pytest

from distilora.tasks.metrics.wilson import wilson


@pytest.mark.parametrize(
    ("passed", "count", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_intervals(passed: int, count: int, low: float, high: float) -> None:
    assert wilson(passed, count) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    assert wilson(count - passed, count) == (pytest.approx(1 - high, abs=5e-5), pytest.approx(1 - low, abs=5e-5))


def test_no_cases_have_no_interval() -> None:
    for passed, count in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="a share of one case or more wanted"):
            wilson(passed, count)
