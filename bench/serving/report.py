"""results/serving.md and results/serving.png."""

from pathlib import Path
from typing import Any

from bench.serving import CONTENDERS, OURS, Row, compute, fastest, goodput, lost_of, numbered, right


def tables(rows: list[Row]) -> str:
    """Return results/serving.md."""
    cells = {row["cell"]: row for row in rows}
    parts = [["# Serving"], contenders(cells), loads(cells), losses(cells["lost"]), fuzzes(cells), claims(rows)]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def line(*values: Any) -> str:
    return "| " + " | ".join(map(str, values)) + " |"


def head(*names: str) -> list[str]:
    return [line(*names), "|---" * len(names) + "|"]


def contenders(cells: dict[str, Row]) -> list[str]:
    """Return the table of requests/s."""
    rounds = numbered(cells, "round")
    lines = [
        "Requests/s of one held-out review each, closed loop at the best number of connections, load on the same 2 cores.",
        "",
    ]
    lines += head("", *(f"round {n}" for n in rounds), "accuracy", "settings", "versions")
    for name in CONTENDERS:
        measured = [cells[f"round-{n}-{name}"] for n in rounds]
        if absent := [row["missing"] for row in measured if "missing" in row]:
            lines.append(line(f"**{name}**", *(["**missing**"] * len(rounds)), "", f"**{absent[0]}**", ""))
            continue
        correct = right(cells, name)
        how = ", ".join(f"{key} {value}" for key, value in measured[0]["how"].items())
        used = ", ".join(f"{key} {value}" for key, value in measured[0]["versions"].items())
        rates = [f"{fastest(row):.1f}" for row in measured]
        lines.append(line(name, *rates, f"{sum(correct) / len(correct):.2%}", how, used))
    return lines


def loads(cells: dict[str, Row]) -> list[str]:
    """Return the table of open loops."""
    lines = ["Open loops of distilora at shares of capacity; ms from the moment at which a request was due.", ""]
    lines += head("round", "capacity, requests/s", "load", "answered/s", "p50 ms", "p99 ms", "statuses")
    for number in numbered(cells, "load"):
        row = cells[f"load-{number}"]
        for each in row["levels"]:
            lines.append(line(number, f"{row['capacity']['requests_per_s']:.1f}", f"{each['share']:.0%}", f"{goodput(each):.1f}",
                              each["p50_ms"], each["p99_ms"], shown(each["statuses"])))  # fmt: skip
    return lines


def losses(row: Row) -> list[str]:
    """Return the table of upheavals."""
    lines = ["-1: nobody listened any more. 0: sent and not answered.", ""]
    lines += head("under load", "statuses at the client", "statuses in the log", "lost")
    return lines + [
        line(part["what"], shown(part["statuses"]), shown(part["given"]), lost_of(part)) for part in row["parts"]
    ]


def fuzzes(cells: dict[str, Row]) -> list[str]:
    """Return the table of broken requests."""
    lines = head("", "requests", "statuses", "objections of its checks")
    for name in ("fuzz", "schemathesis"):
        row = cells[name]
        if "missing" in row:
            lines.append(line(f"**{name}**", "**missing**", f"**{row['missing']}**", ""))
        else:
            objections = {f"{one['title']} ({one['code']})": one["count"] for one in row.get("failures", [])}
            lines.append(line(name, f"{row['requests']:,}", shown(row["statuses"]), shown(objections)))
    return lines


def claims(rows: list[Row]) -> list[str]:
    """Return the table of claims."""
    return head("claim", "value", "spread", "n", "goal", "unit") + [
        line(c["name"], f"{c['value']:.4g}", f"{c['spread'][0]:.4g} to {c['spread'][1]:.4g}", f"{c['n']:,}", c["goal"], c["unit"])
        for c in compute(rows)
    ]  # fmt: skip


def shown(counts: dict[str, int]) -> str:
    return ", ".join(f"{key}: {number:,}" for key, number in counts.items())


def draw(rows: list[Row], path: Path) -> None:
    """Draw requests/s of every contender, and what is answered under load."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cells = {row["cell"]: row for row in rows}
    figure, (rates_axes, load_axes) = pyplot.subplots(1, 2, figsize=(9, 3))
    rates = {
        name: [fastest(row) for n in numbered(cells, "round") if "missing" not in (row := cells[f"round-{n}-{name}"])]
        for name in CONTENDERS
    }
    names = sorted(rates, key=lambda name: max(rates[name], default=0))
    colours = ["tab:blue" if name.startswith(OURS) else "tab:gray" for name in names]
    rates_axes.barh(names, [sum(rates[n]) / max(len(rates[n]), 1) for n in names], color=colours)
    for name in names:
        rates_axes.plot(rates[name], [name] * len(rates[name]), "k.")
        if not rates[name]:
            rates_axes.text(0, names.index(name), " missing", va="center", color="tab:red")
    rates_axes.set_xlabel("requests/s, closed loop, 2 cores with the load")
    for number in numbered(cells, "load"):
        row = cells[f"load-{number}"]
        capacity = row["capacity"]["requests_per_s"]
        load_axes.plot(
            [e["share"] for e in row["levels"]], [goodput(e) / capacity for e in row["levels"]], "o-", color="tab:blue"
        )
    load_axes.plot([0, 1, 4], [0, 1, 1], ":", color="tab:gray")
    load_axes.set_xlabel("requests sent / capacity, open loop")
    load_axes.set_ylabel("answered / capacity")
    load_axes.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
