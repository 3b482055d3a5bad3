"""results/inference.png: reviews/s of every contender, the rounds as dots."""

from pathlib import Path
from typing import Any


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates: dict[str, list[float]] = {}
    for row in rows:
        if row["cell"].startswith("round-"):
            rates.setdefault(row["cell"].split("-", 2)[2], []).append(row["reviews_per_s"])
    names = sorted(rates, key=lambda name: sum(rates[name]))
    figure, axes = pyplot.subplots(figsize=(7, 2.6))
    axes.barh(names, [sum(rates[n]) / len(rates[n]) for n in names],
              color=["tab:blue" if n.startswith("distilora") else "tab:gray" for n in names])  # fmt: skip
    for name in names:
        axes.plot(rates[name], [name] * len(rates[name]), "k.")
    axes.set_xlabel("held-out IMDB reviews/s, 512 tokens at most, 2 cores")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
