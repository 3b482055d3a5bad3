"""Presentation of a comparison: lines for the terminal, JSON for programs, one HTML file that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distilora.errors import ConfigError
from distilora.evaluation.compare import Changed, Comparison, Pair
from distilora.evaluation.page import render
from distilora.files.atomic import atomic_text, write_json
from distilora.files.output import writing_file
from distilora.tasks.metrics.names import LOWER_IS_BETTER, difference_text, metric_name, metric_text
from distilora.tasks.showing import Table

ON_TERMINAL = 3  # wins, and losses
LINE = 100  # characters of a text on the terminal
EXCERPT = 1200  # on the page


def check_output(path: str | Path) -> None:
    """Raise ConfigError if `write_comparison` cannot write to `path`."""
    path = Path(path)
    if path.suffix.lower() not in (".html", ".json"):
        raise ConfigError(f"--output: {path} given, a file ending in .html or .json wanted")
    if not path.parent.is_dir():
        raise ConfigError(f"--output: the folder of {path} does not exist; create it first")


def write_comparison(comparison: Comparison, path: str | Path) -> None:
    """Write HTML or JSON, by the file's ending; the file appears only when it is complete.

    Raises ConfigError for another ending or a missing folder, OutputError if the disk is full, MissingExtra for HTML without
    jinja2.
    """
    check_output(path)
    with writing_file(path):
        if Path(path).suffix.lower() == ".json":
            write_json(path, comparison.record())
            return
        tables = [
            {"figures": _figures(comparison, pair), "changed": _changes(comparison, pair)} for pair in comparison.pairs
        ]
        title = f"{comparison.first}, compared with {', '.join(pair.other for pair in comparison.pairs)}"
        page = render("comparison.html.j2", title=title, comparison=comparison, tables=tables)
        with atomic_text(path) as stream:
            stream.write(page)


def lines(comparison: Comparison) -> list[str]:
    """Format a comparison for the terminal, with a few wins and losses of each pair."""
    shown = [
        f"{comparison.split}: {comparison.examples:,} examples (difference to {comparison.first}, paired 95% intervals)"
    ]
    for pair in comparison.pairs:
        table = _figures(comparison, pair, intervals=False)
        rows = [("", *table.columns[1:]), *table.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        shown += [""]
        shown += [
            "  " + "  ".join(f"{cell:<{n}}" for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        if pair.mcnemar:
            shown.append(
                f"  McNemar's exact test: p = {pair.mcnemar['p']:.2g} ({pair.mcnemar['a_only']:,} examples won, "
                f"{pair.mcnemar['b_only']:,} lost)"
            )
        shown += [f"  {pair.verdict}"] if pair.verdict else []
        for word, changed in (("won", pair.wins), ("lost", pair.losses)):
            shown += [f"  {word}: {_line(row)}" for row in changed[:ON_TERMINAL]]
    return [*shown, *(f"note: {note}" for note in comparison.notes)]


def _line(changed: Changed) -> str:
    text = changed.place if changed.text is None else changed.text
    target, first, other, text = (_short(of) for of in (*changed.shown, text))
    return f"{target} (first {first}, now {other}): {text}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LINE else text[: LINE - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _figures(comparison: Comparison, pair: Pair, intervals: bool = True) -> Table:
    """Lay out the metrics of a pair and their differences; a metric of both runs has its interval with `intervals`."""
    first, other = comparison.metrics[comparison.first], comparison.metrics[pair.other]

    def text(name: str, figure: Mapping[str, Any]) -> str:
        return metric_text(name, figure if intervals else {"value": figure["value"]})

    rows = [
        (
            metric_name(name) + (", lower is better" if name in LOWER_IS_BETTER else ""),
            text(name, first[name]),
            text(name, other[name]),
            difference_text(name, difference),
        )
        for name, difference in pair.differences.items()
    ]
    return Table("", ("metric", comparison.first, pair.other, "difference"), rows)


def _changes(comparison: Comparison, pair: Pair) -> list[Table]:
    columns = ("target", comparison.first, pair.other, "text")
    titles = (f"Answered better by {pair.other}", f"Answered better by {comparison.first}")
    counts = (pair.mcnemar["a_only"], pair.mcnemar["b_only"]) if pair.mcnemar else (len(pair.wins), len(pair.losses))
    return [
        Table("", columns, _rows(changed), text=("text",), fold=f"{title}: {len(changed):,} of {count:,}")
        for title, changed, count in zip(titles, (pair.wins, pair.losses), counts, strict=True)
        if changed
    ]


def _rows(changed: Sequence[Changed]) -> list[tuple[str, ...]]:
    return [(*row.shown, _text(row)) for row in changed]


def _text(changed: Changed) -> str:
    if changed.text is None:
        return f"[{changed.place}]"
    text = changed.text
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT // 2]} [...] {text[-EXCERPT // 2 :]}"
