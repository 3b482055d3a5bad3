"""The report: one small HTML file with everything a reader needs to believe the figures, pictures inside, no network."""

import io
import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distilora.errors import MissingExtra
from distilora.tables import atomic_text

METRICS = {
    "accuracy": ("Accuracy", "{:.2%}"),
    "macro_f1": ("Macro F1", "{:.2%}"),
    "mcc": ("Matthews correlation", "{:.3f}"),
    "auroc": ("AUROC", "{:.4f}"),
    "log_loss": ("Log loss", "{:.4f}"),
    "brier": ("Brier score", "{:.4f}"),
    "ece": ("Calibration error (ECE, 15 bins)", "{:.4f}"),
}
INK, ACCENT, SOFT, WARN = "#1f2933", "#2563a6", "#c9d8e8", "#c2410c"


def write_report(
    path: Path,
    title: str,
    splits: Sequence[Mapping[str, Any]],
    *,
    history: Sequence[Mapping[str, float]] = (),
    notes: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    settings: str = "",
) -> None:
    """Writes report.html.

    Args:
        splits: what `evaluate.measure` gave, the one to read first in front.
        history: losses by update, from training.
        notes: sentences a reader must know, such as where the figures flatter.
        facts: name -> value, shown beside the metrics.
        settings: the resolved run.yaml, shown at the end.

    Raises MissingExtra without jinja2 or matplotlib.
    """
    try:
        import jinja2
    except ImportError:
        raise MissingExtra("jinja2", "train") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["metric"] = metric_text
    environment.filters["metric_name"] = lambda name: METRICS.get(name, (name.replace("_", " "), ""))[0]
    page = environment.get_template("report.html.j2").render(
        title=title,
        splits=[{**split, "pictures": pictures(split)} for split in splits],
        curves=curves(history),
        notes=notes,
        facts=facts or {},
        settings=settings,
    )
    with atomic_text(path) as stream:
        stream.write(page)


def metric_text(name: str, measured: Mapping[str, Any]) -> str:
    """A metric with its interval, as '88.12% (86.80 to 89.36)'."""
    pattern = METRICS.get(name, ("", "{:.4g}"))[1]
    if measured["value"] is None:
        return "undefined"
    text = pattern.format(measured["value"])
    if measured.get("low") is not None:
        low, high = (pattern.format(measured[side]).rstrip("%") for side in ("low", "high"))
        text += f" ({low} to {high})"
    return text


def pictures(split: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(caption, svg) of whatever a split's metrics (what `evaluation.measure` gave) have arrays for."""
    figures = split["figures"]
    labels = [_label(label) for label in split["labels"]]
    drawn = []
    if "confusion" in figures:
        drawn.append(("Confusion matrix: rows are the true class", _confusion(figures["confusion"], labels)))
    if "reliability" in figures:
        drawn.append(("Reliability: on the diagonal, confidence is accuracy", _reliability(figures["reliability"])))
    if figures.get("roc"):
        drawn.append(("ROC curve", _roc(figures["roc"], labels)))
    if "confidence" in figures:
        drawn.append(("How confident the answers are", _confidence(figures["confidence"])))
    by_length = [row for row in split["slices"] if row["slice"].endswith("tokens")]
    if by_length:
        drawn.append(
            (f"{METRICS.get(by_length[0]['metric'], (by_length[0]['metric'],))[0]} by length", _lengths(by_length))
        )
    return drawn


def _label(name: str) -> str:
    """A class's name for a picture: cut where it is long, and no formula where it holds two dollars."""
    return (name if len(name) <= 20 else name[:19] + "…").replace("$", r"\$")


def _figure(width: float = 4.2, height: float = 3.2) -> tuple[Any, Any]:
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
        warnings.simplefilter("ignore")  # a glyph that matplotlib's font lacks: the browser draws the text
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # without the XML prologue, which HTML does not take


def curves(history: Sequence[Mapping[str, float]]) -> list[tuple[str, str]]:
    """(caption, svg) of the losses by update, from training's history; none where nothing was trained."""
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
    return [("Loss in training and on validation", _svg(figure))]


def _confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    figure, axes = _figure(max(3.6, 0.7 * len(matrix)), max(3.0, 0.6 * len(matrix)))
    shares = [[cell / max(sum(row), 1) for cell in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(matrix):
        for j, cell in enumerate(row):
            colour = "white" if shares[i][j] > 0.5 else INK
            axes.text(j, i, f"{cell:,}\n{shares[i][j]:.1%}", ha="center", va="center", color=colour, fontsize=9)
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


def _roc(curves: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1)
    for curve in curves:
        axes.plot(
            curve["false_positive"], curve["true_positive"], linewidth=1.8, label=labels[curve["class"]],
            color=ACCENT if len(curves) == 1 else None,
        )  # fmt: skip
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure)


def _confidence(counts: Sequence[int]) -> str:
    figure, axes = _figure()
    axes.bar([(i + 0.5) / len(counts) for i in range(len(counts))], counts, width=0.9 / len(counts), color=ACCENT)
    first = next((i for i, count in enumerate(counts) if count), 0)
    axes.set(xlabel="confidence", ylabel="examples", xlim=(first / len(counts) - 0.02, 1.02))
    return _svg(figure)


def _lengths(rows: Sequence[Mapping[str, Any]]) -> str:
    figure, axes = _figure()
    names = [f"{row['slice'].removesuffix(' tokens')}\nn={row['examples']:,}" for row in rows]
    values = [row["value"] if row["value"] is not None else float("nan") for row in rows]
    axes.bar(names, values, color=ACCENT, width=0.7)
    known = [value for value in values if value == value]
    if known and min(known) > 0.5 and max(known) <= 1:
        axes.set_ylim(0.5, 1.0)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("tokens read")
    return _svg(figure)
