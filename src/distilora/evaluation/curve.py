"""Reads a learning curve: which method for how many labels, and whether more labels help. As record, page and lines.

All methods and sizes are measured on the same examples, so they are compared example by example (tasks/metrics/paired.py):

    difference   accuracy of a method minus that of the best other one on the same labels
    gain         accuracy of a method minus its own on the next smaller number of labels
    take         the simplest method that the most accurate one is not clearly better than: 0 is in the interval
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from distilora.config.parse import to_tree
from distilora.config.schema import RunConfig
from distilora.evaluation.baselines import TITLES
from distilora.evaluation.page import render
from distilora.evaluation.pictures import accuracy_by_labels
from distilora.evaluation.views import points
from distilora.files.atomic import atomic_text, write_json
from distilora.tasks.metrics.names import metric_name, metric_text
from distilora.tasks.metrics.paired import paired_difference
from distilora.tasks.showing import Table
from distilora.version import __version__

NAMES = {**TITLES, "encoder": "encoder", "combined": "encoder and n-gram expert combined"}  # the simplest first


def summarise(
    rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], notes: Sequence[str], config: RunConfig, resamples: int
) -> dict[str, Any]:
    """Compare the methods of a curve's sizes and return the contents of curve.json.

    Args:
        rows: finished sizes, the smallest first.
        facts: what all sizes have in common, such as `split` and `examples`.
        notes: sentences on the data.
    """
    sizes: list[dict[str, Any]] = []
    before: Mapping[str, Any] | None = None
    for row in rows:
        methods = [_compared(method, row, before, resamples) for method in row["methods"]]
        sizes.append({**row, "methods": methods, "take": take(methods)})
        before = row
    return {
        "distilora": __version__,
        **facts,
        "resamples": resamples,
        "advice": [advice(sizes, facts["examples"]), *more_labels(sizes)] if sizes else [],
        "sizes": sizes,
        "notes": [*_caveats(facts), *notes],
        "settings": to_tree(config),
    }


def take(methods: Sequence[Mapping[str, Any]]) -> str:
    """Choose the simplest method whose interval of the difference to the best other one reaches 0."""
    good = [method["name"] for method in methods if method["difference"]["high"] >= 0]
    return str(next(name for name in NAMES if name in good))


def advice(sizes: Sequence[Mapping[str, Any]], examples: int) -> str:
    """Say which method to take for how many labels."""
    runs = [(name, [row["size"] for row in group]) for name, group in groupby(sizes, lambda row: row["take"])]
    parts = []
    for i, (name, numbers) in enumerate(runs):
        span = f"{numbers[0]:,}" + (f" to {numbers[-1]:,}" if len(numbers) > 1 else "")
        where = f"from {numbers[0]:,} on" if i == len(runs) - 1 and len(runs) > 1 else f"with {span} labels"
        parts.append(f"{where} take {_title(name)}")
    text = "; ".join(parts)
    which = "Each" if len(runs) > 1 else "It"
    return (
        f"{text[0].upper()}{text[1:]}. {which} is the simplest method that the most accurate one is not clearly better than "
        f"(95% intervals of paired differences on {examples:,} examples)."
    )


def more_labels(sizes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say whether the last increase of the labels helped the method to take; [] for a single size."""
    if len(sizes) < 2:
        return []
    last, before = sizes[-1], sizes[-2]["size"]
    gain = next(method["gain"] for method in last["methods"] if method["name"] == last["take"])
    if gain is None:
        return []
    text = f"From {before:,} to {last['size']:,} labels, the accuracy of {_title(last['take'])} changes by {points(gain)}: "
    if gain["low"] > 0:
        return [text + "more labels are likely to help still."]
    return [text + "these examples do not show that more labels help."]


def write_curve(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write curve.html and curve.json, each whole. Raises MissingExtra without jinja2 or matplotlib."""
    kept = [
        {**row, "methods": [{k: v for k, v in method.items() if k != "correct"} for method in row["methods"]]}
        for row in summary["sizes"]
    ]
    page = render(
        "curve.html.j2",
        title=f"Learning curve: {summary['encoder']} on {summary['source']}",
        curve=summary,
        table=curve_table(summary),
        picture=accuracy_by_labels(_lines(summary), metric_name(_metric(summary))),
        settings=yaml.safe_dump(summary["settings"], sort_keys=False, allow_unicode=True),
    )
    with atomic_text(folder / "curve.html") as stream:
        stream.write(page)
    write_json(folder / "curve.json", {**summary, "sizes": kept})


def curve_table(summary: Mapping[str, Any]) -> Table:
    """Lay out every method on every number of labels."""
    rows = []
    for row in summary["sizes"]:
        for method in row["methods"]:
            gain = "" if method["gain"] is None else points(method["gain"])
            rows.append(
                (
                    f"{row['size']:,}",
                    NAMES[method["name"]] + (" *" if method["name"] == row["take"] else ""),
                    metric_text(method["metric"], method),
                    f"{method['seconds']:,.{0 if method['seconds'] >= 10 else 1}f} s",
                    points(method["difference"]),
                    gain,
                )
            )
    metric = metric_name(_metric(summary)).lower()
    return Table("", ("labels", "method", metric, "time", "minus the best other", "minus fewer labels"), rows)


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Format a curve for the terminal."""
    table = curve_table(summary)
    rows = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    shown = [
        f"{summary['source']}: {summary['split']}, {summary['examples']:,} examples (95% intervals; * the one to take)"
    ]
    shown += ["  " + "  ".join(f"{cell:<{n}}" for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*summary["advice"], "", *shown, *(f"note: {note}" for note in summary["notes"])]


def _compared(
    method: Mapping[str, Any], row: Mapping[str, Any], before: Mapping[str, Any] | None, resamples: int
) -> dict[str, Any]:
    """Pair a method with the best other one, and with itself on fewer labels."""
    best = max(
        (other for other in row["methods"] if other["name"] != method["name"]), key=lambda other: _correct(other).sum()
    )
    difference = {"to": best["name"], **paired_difference(_correct(method), _correct(best), resamples)}
    gain: dict[str, Any] | None = None
    for fewer in [] if before is None else before["methods"]:
        if before is not None and fewer["name"] == method["name"]:
            gain = {"from": before["size"], **paired_difference(_correct(method), _correct(fewer), resamples)}
    return {**method, "difference": difference, "gain": gain}


def _correct(method: Mapping[str, Any]) -> NDArray[np.bool_]:
    return np.asarray(np.frombuffer(method["correct"].encode(), np.uint8) == ord("1"))


def _lines(summary: Mapping[str, Any]) -> dict[str, list[tuple[int, Mapping[str, Any]]]]:
    """Gather the points of each method: labels, and its figure."""
    of_method: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for row in summary["sizes"]:
        for method in row["methods"]:
            of_method.setdefault(NAMES[method["name"]], []).append((row["size"], method))
    return of_method


def _metric(summary: Mapping[str, Any]) -> str:
    return str(summary["sizes"][0]["methods"][0]["metric"])


def _title(name: str) -> str:
    return NAMES[name] if name in TITLES else f"the {NAMES[name]}"


def _caveats(facts: Mapping[str, Any]) -> list[str]:
    """Say what the figures mean, and where they flatter."""
    chooses = f"{facts['validation']:,} validation examples, the same for all sizes, choose the encoder's checkpoint and calibrate"
    if facts["split"] == "validation":
        first = (
            "No examples are held out, so everything is measured on the validation examples, by which the encoder's checkpoint "
            "and its weights beside an n-gram expert were chosen: its figures flatter."
        )
    else:
        first = (
            f"{facts['examples']:,} examples of the training split are held out, the same for all sizes. A test split is not read, "
            "since a curve is there to choose by: what is chosen by these figures has a little less on new examples."
        )
    return [
        first,
        f"{chooses}; they have labels, too, which the sizes do not count.",
        "Each size is one sample and one seed. The intervals are those of the measured examples: of the same number of other "
        "labels, the figures may differ by more, above all where they are few.",
        f"The encoder gets the epochs of the settings, and on few labels as many as give {facts['least_updates']:,} updates.",
    ]
