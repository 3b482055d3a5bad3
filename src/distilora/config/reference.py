"""Writes the reference page of all settings, docs/configuration.md, from the config classes: one source for both."""

import sys

from distilora.config.descriptions import stages
from distilora.config.schema import MeasureConfig, RunConfig


def reference_page() -> str:
    """The page as Markdown."""
    lines = [
        "# Settings",
        "",
        "Made by `make docs` from `src/distilora/config.py`. A recipe gives settings as YAML, `stage: {field: value}`; a flag as",
        "`--stage.field value`, which wins. `null` means that the run decides; its `run.yaml` says what it decided. A list is",
        "`[a,b]` in both. `distilora train --help` and `distilora evaluate --help` say the same.",
    ]
    for command, config in (("distilora train", RunConfig), ("distilora evaluate", MeasureConfig)):
        lines += ["", f"## `{command}`"]
        for stage in stages(config):
            title = f"`{stage.name}`: {stage.title}" if stage.name else stage.title
            lines += ["", f"### {title}", "", "| setting | given as | default | meaning |", "|---|---|---|---|"]
            lines += [f"| `{s.key}` | {s.kind} | `{s.default}` | {s.meaning} |" for s in stage.settings]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference_page())
