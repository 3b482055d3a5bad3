"""The report's pictures: self-contained SVG to embed in a page."""

import io
import re
import statistics
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from distilora.errors import MissingExtra
from distilora.tasks import showing
from distilora.tasks.metrics.names import metric_name

INK, ACCENT, SOFT, WARN = "#1f2933", "#2563a6", "#c9d8e8", "#c2410c"
WIDTH = 4.2  # inches of a picture with others beside it
NARROW = 4  # classes up to which the confusion matrix has other pictures beside it
ROOMY = 8  # classes up to which a cell of the confusion matrix has room for its share


class Picture(NamedTuple):
    """An SVG with its caption."""

    caption: str
    svg: str

    @property
    def wide(self) -> bool:
        """Whether it is wider than others and takes a row of the page to itself."""
        width = re.search(r'width="([\d.]+)pt"', self.svg)
        return width is not None and float(width[1]) > 72 * WIDTH + 1  # 72 points to the inch


def draw(picture: showing.Picture) -> Picture:
    """Draw a picture that a task declares for the report."""
    if isinstance(picture, showing.Matrix):
        return Picture(picture.caption, _matrix(picture.counts, [_label(name) for name in picture.names]))
    if isinstance(picture, showing.Reliability):
        return Picture(picture.caption, _reliability(picture.bins))
    if isinstance(picture, showing.Curves):
        return Picture(picture.caption, _curves(picture))
    if isinstance(picture, showing.Coverage):
        return Picture(picture.caption, _coverage(picture))
    if isinstance(picture, showing.Points):
        return Picture(picture.caption, _points(picture))
    return Picture(picture.caption, _histogram(picture))


def lengths(split: Mapping[str, Any]) -> list[Picture]:
    """Draw the headline metric by length; nothing if all texts fall into one slice."""
    by_length = [row for row in split["slices"] if row["slice"].endswith("tokens")]
    if len(by_length) < 2:
        return []
    return [Picture(f"{metric_name(by_length[0]['metric'])} by length", _lengths(by_length))]


def _label(name: str) -> str:
    """Shorten a class's name for a picture and escape dollars, which matplotlib would take for a formula."""
    return (name if len(name) <= 20 else name[:19] + "…").replace("$", r"\$")


def _figure(width: float = WIDTH, height: float = 3.2) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "train") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib

    buffer = io.StringIO()
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "distilora", "font.family": "sans-serif"}),
    ):
        warnings.simplefilter("ignore")  # glyphs missing from matplotlib's font: the browser draws the text
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # without the XML prologue, which is invalid inside HTML


def curves(history: Sequence[Mapping[str, float]]) -> list[Picture]:
    """Draw the losses by update from the training history; nothing if there was no training."""
    train = [(row["update"], row["loss"]) for row in history if "loss" in row]
    validation = [(row["update"], row["validation_loss"]) for row in history if "validation_loss" in row]
    if not train:
        return []
    figure, axes = _figure(8.6, 3.0)
    axes.plot(*zip(*train, strict=True), color=SOFT, linewidth=1, label="each update")
    width = max(len(train) // 40, 1)
    smooth = [
        (u, statistics.fmean(loss for _, loss in train[max(i - width, 0) : i + width + 1]))
        for i, (u, _) in enumerate(train)
    ]
    axes.plot(*zip(*smooth, strict=True), color=ACCENT, linewidth=1.8, label=f"mean of {2 * width + 1}")
    axes.plot(*zip(*validation, strict=True), "o-", color=WARN, label="validation")
    axes.set(xlabel="update", ylabel="loss", ylim=(0, None))
    axes.legend(frameon=False, fontsize=9)
    return [Picture("Loss in training and on validation", _svg(figure))]


def accuracy_by_labels(lines: Mapping[str, Sequence[tuple[int, Mapping[str, Any]]]], metric: str) -> Picture:
    """Draw a learning curve: for each name the points (labels, figure with `value`, `low` and `high`), on a log axis."""
    figure, axes = _figure(8.6, 4.2)
    colours = [INK, "#7b8794", ACCENT, WARN]
    for (name, points), colour in zip(lines.items(), colours, strict=False):
        labels = [count for count, _ in points]
        value, low, high = ([figure[key] for _, figure in points] for key in ("value", "low", "high"))
        axes.plot(labels, value, "o-", color=colour, linewidth=1.8, markersize=4, label=name)
        axes.fill_between(labels, low, high, color=colour, alpha=0.13, linewidth=0)
    counts = sorted({count for points in lines.values() for count, _ in points})
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set(xlabel="labels", ylabel=metric.lower())
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(lines))
    return Picture(f"{metric} by number of labels; bands are 95% intervals", _svg(figure))


def _matrix(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    count = len(matrix)
    width = max(3.6, 0.7 * count) if count <= NARROW else max(5.0, 0.9 * count if count <= ROOMY else 0.45 * count)
    figure, axes = _figure(width, 0.85 * width)
    shares = [[cell / max(sum(row), 1) for cell in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(matrix):
        for j, cell in enumerate(row):
            colour = "white" if shares[i][j] > 0.5 else INK
            if len(matrix) <= ROOMY:
                axes.text(j, i, f"{cell:,}\n{shares[i][j]:.1%}", ha="center", va="center", color=colour, fontsize=9)
            elif cell:
                axes.text(j, i, f"{cell:,}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(labels)), labels, rotation=0 if len(labels) < 4 else 45)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true")
    return _svg(figure)


def _reliability(rows: Sequence[Mapping[str, float]]) -> str:
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, zorder=0)
    most = max(row["count"] for row in rows)
    axes.scatter(
        [row["confidence"] for row in rows], [row["accuracy"] for row in rows],
        s=[15 + 180 * row["count"] / most for row in rows], color=ACCENT, alpha=0.8,
    )  # fmt: skip
    low = min(min(row["confidence"], row["accuracy"]) for row in rows)
    axes.set(
        xlabel="confidence", ylabel="accuracy", xlim=(min(low, 0.5) - 0.03, 1.03), ylim=(min(low, 0.5) - 0.03, 1.03)
    )
    return _svg(figure)


def _curves(picture: showing.Curves) -> str:
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1)
    for curve in picture.curves:
        colour = ACCENT if len(picture.curves) == 1 else None
        axes.plot(curve.x, curve.y, linewidth=1.8, label=_label(curve.name), color=colour)
    axes.set(xlabel=picture.x, ylabel=picture.y)
    axes.legend(frameon=False, fontsize=9 if len(picture.curves) < 6 else 7)
    return _svg(figure)


def _coverage(picture: showing.Coverage) -> str:
    figure, axes = _figure()
    axes.axhline(picture.accuracy[-1], color=SOFT, linewidth=1)  # of all examples
    axes.plot(picture.coverage, picture.accuracy, linewidth=1.8, color=ACCENT)
    low = min(picture.accuracy)
    axes.set(
        xlabel="coverage",
        ylabel="accuracy of the answers",
        xlim=(0, 1.02),
        ylim=(low - 0.05 * (1 - low) - 0.005, 1.005),
    )
    return _svg(figure)


def _points(picture: showing.Points) -> str:
    figure, axes = _figure()
    ends = [min(*picture.x, *picture.y), max(*picture.x, *picture.y)]
    axes.plot(ends, ends, color=SOFT, linewidth=1, zorder=0)
    axes.scatter(picture.x, picture.y, s=8, color=ACCENT, alpha=0.4, linewidths=0)
    axes.set(xlabel=picture.x_name, ylabel=picture.y_name)
    return _svg(figure)


def _histogram(picture: showing.Histogram) -> str:
    figure, axes = _figure()
    counts = picture.counts
    axes.bar([(i + 0.5) / len(counts) for i in range(len(counts))], counts, width=0.9 / len(counts), color=ACCENT)
    first = next((i for i, count in enumerate(counts) if count), 0)
    axes.set(xlabel=picture.x, ylabel="examples", xlim=(first / len(counts) - 0.02, 1.02))
    return _svg(figure)


def _lengths(rows: Sequence[Mapping[str, Any]]) -> str:
    figure, axes = _figure()
    names = [f"{row['slice'].removesuffix(' tokens')}\nn={row['examples']:,}" for row in rows]
    values = [row["value"] if row["value"] is not None else float("nan") for row in rows]
    axes.bar(names, values, color=ACCENT, width=0.7)
    defined = [value for value in values if value == value]
    if defined and min(defined) > 0.5 and max(defined) <= 1:
        axes.set_ylim(0.5, 1.0)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("tokens read")
    return _svg(figure)
