"""The command `distilora data`: what a run would train on, before it is trained: classes, counts, lengths, what is odd."""

import json
from collections.abc import Sequence
from typing import Any

from distilora.cli.arguments import EVERYWHERE, TRAIN_OPTIONS, require_train_extra
from distilora.cli.settings import settings_to_look_at

USAGE = "distilora data [RECIPE.yaml] [--task TASK] [--data.FIELD VALUE ...] [--json]"
OPTIONS = {"RECIPE.yaml": TRAIN_OPTIONS["RECIPE.yaml"], "--json": "print JSON", **EVERYWHERE}


def reads(key: str) -> bool:
    """Tell whether a setting of a run makes a difference to the description of its data."""
    return key in ("task", "data", "encoder") or key.startswith(("data.", "encoder."))


def data_command(words: Sequence[str]) -> int:
    """Print what the data are and return the exit code."""
    settings = settings_to_look_at("data", words, USAGE, OPTIONS, reads)
    if settings is None:
        return 0
    config, as_json = settings
    require_train_extra()
    from distilora.runs.describe import describe

    described = describe(config)
    if as_json:
        print(json.dumps(described, ensure_ascii=False))
    else:
        _print(described)
    return 0


def _print(described: dict[str, Any]) -> None:
    from distilora.cli.console import print_table
    from distilora.runs.describe import SHOWN

    rows = [
        (
            "read",
            f"{described['read']:,} records, {described['blank_skipped']:,} blank, "
            f"{described['exact_copies_dropped']:,} exact copies dropped, "
            f"{described['near_copies_kept_together']:,} pairs of near copies kept together",
        )
    ]
    for part in described["parts"]:
        classes = ", ".join(f"{label} {count:,}" for label, count in part["classes"].items())
        rows.append((part["part"], f"{part['examples']:,} examples" + (f": {classes}" if classes else "")))
    rows.append(("test", f"{described['test_split']}, not looked at"))
    for unit in ("words", "tokens"):
        if lengths := described[unit]:
            cut = f"; {lengths['longer']:,} are longer than max_length" if "longer" in lengths else ""
            rows.append(
                (
                    unit,
                    f"median {lengths['median']:,}, 95% up to {lengths['p95']:,}, longest {lengths['longest']:,}{cut}",
                )
            )
    print_table(f"{described['source']}: task {described['task']['name']}", rows)
    if described["odd"]:
        print(f"\n{len(described['odd']):,} texts look odd, such as:")
        for row in described["odd"][:SHOWN]:
            print(f"  {row['place']}: {row['what']}: {row['text']}")
    for note in described["notes"]:
        print(f"note: {note}")
