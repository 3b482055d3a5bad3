"""The report: one small HTML file with everything a reader needs to believe the figures, pictures inside, no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distilora.confusion import frequent_confusions
from distilora.errors import MissingExtra
from distilora.files import atomic_text
from distilora.metric_names import metric_name, metric_text, share_text
from distilora.metrics import SHOWN
from distilora.pictures import curves, pictures

WEAKEST = 10  # classes shown in sight where there are more than SHOWN; the others unfold


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
    """Write report.html.

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
    environment.filters["metric_name"] = metric_name
    environment.filters["share"] = share_text
    page = environment.get_template("report.html.j2").render(
        title=title,
        splits=[_shown(split) for split in splits],
        curves=curves(history),
        notes=notes,
        facts=facts or {},
        settings=settings,
    )
    with atomic_text(path) as stream:
        stream.write(page)


def _shown(split: Mapping[str, Any]) -> dict[str, Any]:
    """A split as the template shows it: with pictures, and with many classes the weakest in front."""
    classes = split.get("classes", [])
    shown = {**split, "pictures": pictures(split), "all_classes": classes, "weakest": [], "confusions": []}
    if len(classes) > SHOWN:
        known = [row for row in classes if row["f1"] is not None]
        shown["weakest"] = sorted(known, key=lambda row: float(row["f1"]))[:WEAKEST]
        shown["confusions"] = frequent_confusions(split["figures"], split["labels"])
    return shown
