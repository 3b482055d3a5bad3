"""Writes the reference page of all settings, docs/configuration.md, from the config classes: one source for both."""

import dataclasses
import sys
from typing import Any, get_type_hints

from distilora.config import MeasureConfig, RunConfig


def reference_page() -> str:
    """The page as Markdown."""
    lines = [
        "# Settings",
        "",
        "Made by `make docs` from `src/distilora/config.py`. A recipe gives settings as YAML, `stage: {field: value}`; a flag as",
        "`--stage.field value`, which wins. `null` means that the run decides; its `run.yaml` says what it decided.",
    ]
    for command, config in (("distilora train", RunConfig), ("distilora evaluate", MeasureConfig)):
        lines += ["", f"## `{command}`"]
        lines += _section(config, "")
    return "\n".join(lines) + "\n"


def _section(config: type, prefix: str) -> list[str]:
    from docstring_parser import parse_from_object

    parsed = parse_from_object(config)
    described = {p.arg_name: " ".join((p.description or "").split()) for p in parsed.params}
    title = f"`{prefix.rstrip('.')}`: " if prefix else ""
    lines = ["", f"### {title}{(parsed.short_description or '').rstrip('.')}", "", "| setting | default | meaning |"]
    lines.append("|---|---|---|")
    hints = get_type_hints(config)
    stages = []
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(hints[field.name]):
            stages.append(field.name)
            continue
        lines.append(f"| `{prefix}{field.name}` | {_plain(field.default)} | {described.get(field.name, '')} |")
    for stage in stages:
        lines += _section(hints[stage], f"{prefix}{stage}.")
    return lines


def _plain(value: Any) -> str:
    return "`null`" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    sys.stdout.write(reference_page())
