"""Presentation of a comparison: the page, JSON, and lines of the terminal."""

import json
from pathlib import Path

import pytest
from support.pages import Page

from distilora.errors import ConfigError
from distilora.evaluation.compare import Changed, Comparison, Pair
from distilora.evaluation.comparison import lines, write_comparison

EVIL = "<script>alert('x')</script>"


def figure(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def comparison() -> Comparison:
    won = Changed(
        "films.csv row 7", "ab", EVIL, "good", {"label": "bad", "score": 0.6}, {"label": "good", "score": 0.9},
        ["good", "bad 0.60", "good 0.90"],
    )  # fmt: skip
    first, other = {"share": 0.5}, {"share": 0.25}
    lost = Changed("films.csv row 9", "cd", None, "bad", first, other, ["bad", "share 0.5", "share 0.25"])
    metrics = {
        "a": {"accuracy": figure(0.5, 0.4, 0.6), "log_loss": figure(0.7), "auroc": figure(None)},
        "b": {"accuracy": figure(0.7, 0.6, 0.8), "log_loss": figure(0.6), "auroc": figure(None)},
    }
    differences = {"accuracy": figure(0.2, 0.1, 0.3), "log_loss": figure(-0.1, -0.2, 0.05), "auroc": figure(None)}
    pair = Pair("b", differences, {"a_only": 40, "b_only": 20, "p": 0.0123}, "b is more accurate.", [won], [lost])
    return Comparison("test", 100, 1000, metrics, [pair], ["Beware."])


def test_the_page_needs_no_network_and_shows_texts_as_texts(comparison: Comparison, tmp_path: Path) -> None:
    write_comparison(comparison, tmp_path / "c.html")
    page = Page(tmp_path / "c.html")
    assert "script" not in page.tags
    assert not [name for _, name, _ in page.attributes if name in ("src", "href")]
    for text in (EVIL, "[films.csv row 9]", "+20.00 points (+10.00 to +30.00)", "-0.1000 (-0.2000 to +0.0500)",
                 "50.00% (40.00 to 60.00)", "undefined", "Beware.", "b is more accurate.", "p = 0.012", "1 of 40", "1 of 20",
                 "good 0.90", "share 0.25", "Log loss, lower is better"):  # fmt: skip
        assert text in page.text, text
    assert "--accent" in page.source  # the report's style


def test_json_is_the_record(comparison: Comparison, tmp_path: Path) -> None:
    write_comparison(comparison, tmp_path / "c.json")
    record = json.loads((tmp_path / "c.json").read_text())
    assert record == comparison.record()
    assert record["first"] == "a"
    assert record["pairs"][0]["mcnemar"]["p"] == 0.0123
    assert record["pairs"][0]["wins"][0]["text"] == EVIL


def test_lines(comparison: Comparison) -> None:
    shown = lines(comparison)
    assert "  Accuracy                   50.00%     70.00%     +20.00 points (+10.00 to +30.00)" in shown
    assert "  McNemar's exact test: p = 0.012 (40 examples won, 20 lost)" in shown
    assert f"  won: good (first bad 0.60, now good 0.90): {EVIL}" in shown
    assert "  lost: bad (first share 0.5, now share 0.25): films.csv row 9" in shown
    assert shown[-1] == "note: Beware."


def test_other_endings_are_refused(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a file ending in .html or .json wanted"):
        write_comparison(comparison, tmp_path / "c.pdf")
    with pytest.raises(ConfigError, match=r"the folder of .* does not exist"):
        write_comparison(comparison, tmp_path / "no" / "c.html")
