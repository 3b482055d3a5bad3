"""results/speed.md and results/speed.png from results/speed.json."""

import statistics
from pathlib import Path
from typing import Any

from bench.speed import TARGET, contender_seconds


def write_table(results: dict[str, Any], file: Path) -> None:
    """Claims, then what each cell measured."""
    first = results["claims"][0]
    lines = ["# Training speed", "", f"`{first['command']}`, {first['machine']}. What is compared with what: "
             "`bench/speed/__init__.py`.", "", "| claim | value | spread | n | goal |", "|---|---|---|---|---|"]  # fmt: skip
    for claim in results["claims"]:
        low, high = claim["spread"]
        lines.append(f"| {claim['name']} ({claim['unit']}) | {claim['value']:.3g} | {low:.3g} to {high:.3g} | {claim['n']} | "
                     f"{claim['goal']} |")  # fmt: skip
    cells = {row["cell"]: row for row in results["rows"]}
    lines += ["", "| contender | reviews/s, median | rounds |", "|---|---|---|"]
    names = list(dict.fromkeys(name.split("-")[2] for name in cells if name.startswith("rate-")))
    for name in names:
        rates = [
            row["reviews_per_s"]
            for cell, row in cells.items()
            if cell.startswith("rate-") and cell.endswith("-" + name)
        ]
        lines.append(f"| {name} | {statistics.median(rates):.1f} | {', '.join(f'{r:.1f}' for r in rates)} |")
    lines += ["", "| memory, 2,048 tokens a pass | peak above imports, MB | resident, MB |", "|---|---|---|"]
    lines += [
        f"| {cell} | {row['peak_mb']:.0f} | {row['resident_mb']:.0f} |"
        for cell, row in cells.items()
        if cell.startswith("memory")
    ]
    lines += ["", "| reviews (64 tokens, one trained block) | reviews/s | peak above imports, MB | resident, MB | whole run, s |",
              "|---|---|---|---|---|"]  # fmt: skip
    lines += [f"| {row['reviews']:,} | {row['reviews_per_s']:.0f} | {row['peak_mb']:.0f} | {row['resident_mb']:.0f} | "
              f"{row['wall_s']:.0f} |" for cell, row in cells.items() if cell.startswith("scale")]  # fmt: skip
    if "few" in cells:
        row = cells["few"]
        right = sum(row["right"]) / len(row["right"])
        lines += ["", f"SetFit {row['setfit']}, {row['per_class']} reviews of each class, 256 tokens: {row['seconds']:.0f} s "
                  f"to the trained model, {right:.1%} of {len(row['right']):,} held-out reviews."]  # fmt: skip
    file.write_text("\n".join(lines) + "\n", "utf-8")


def write_picture(results: dict[str, Any], file: Path) -> None:
    """Validation accuracy against seconds since the start of the process, logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cells = {row["cell"]: row for row in results["rows"]}
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name, colour in (("reference", "#999999"), ("tuned", "#d98032")):
        points = cells[f"curve-{name}"]["points"]
        whole = contender_seconds({**cells, f"curve-{name}": {"points": points[-1:]}}, name, 0)
        seconds = [whole * point["reviews"] / points[-1]["reviews"] for point in points]
        axes.plot(
            seconds, [point["accuracy"] for point in points], color=colour, label=f"{name} (Trainer + PEFT)", lw=1
        )
    for cell, row in cells.items():
        if cell.startswith("whole"):
            axes.plot([p["seconds"] for p in row["points"]], [p["accuracy"] for p in row["points"]], "o-", color="#1f6f54",
                      label="distilora" if cell.endswith("-0") else None)  # fmt: skip
    axes.axhline(TARGET, color="black", lw=0.5)
    axes.set(xscale="log", ylim=(0.65, 0.93), xlabel="seconds", ylabel="accuracy on 1,000 validation reviews")
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
