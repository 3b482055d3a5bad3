"""The command `distilora audit`: finds labels and texts that look wrong, and applies the corrections made in Label Studio."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distilora.cli.arguments import EVERYWHERE, require_train_extra
from distilora.errors import ConfigError

if TYPE_CHECKING:
    from distilora.config.measuring import AuditConfig

USAGE = (
    "distilora audit DATA [--output DIR] [--run RUN] [--overwrite] [--data.FIELD VALUE ...]; "
    "distilora audit DATA --apply FILE.json --output FILE"
)
OPTIONS = {
    "DATA": "labelled data, as --data.path",
    "--overwrite": "replace the audit, or the table, that the output holds",
    **EVERYWHERE,
}


def audit_command(words: Sequence[str]) -> int:
    """Audit data, or apply corrections to them, print what was found, and return the exit code."""
    from distilora.config.descriptions import help_text
    from distilora.config.measuring import AuditConfig

    if "-h" in words or "--help" in words:
        print(help_text(AuditConfig, USAGE, OPTIONS))
        return 0
    config, overwrite = read_settings(words)
    if config.apply is not None:
        from distilora.evaluation.corrections import apply_corrections

        _print_applied(config.output, apply_corrections(config, overwrite))
        return 0
    from distilora.evaluation.audit import audit

    _print_found(config.output, audit(config, overwrite))
    return 0


def read_settings(words: Sequence[str]) -> "tuple[AuditConfig, bool]":
    """Read DATA and the settings after it; return them, and whether to overwrite. Raises ConfigError."""
    from distilora.config.measuring import AuditConfig

    if not words or words[0].startswith("-"):
        raise ConfigError(f"DATA: the labelled data come first; usage: {USAGE}")
    if len(words) > 1 and not words[1].startswith("-"):
        raise ConfigError(
            f"{words[1]}: one DATA is audited at a time; a test split from elsewhere is given with --data.test_path"
        )
    settings = [word for word in words[1:] if word != "--overwrite"]
    if any(word.split("=")[0] == "--data.path" for word in settings):
        raise ConfigError("--data.path: DATA says it already; drop it")
    require_train_extra()
    from distilora.config.parse import parse

    config = parse(AuditConfig, [f"--data.path={words[0]}", *settings], options=OPTIONS)
    return config, len(settings) < len(words) - 1


def _print_found(folder: str, summary: dict[str, Any]) -> None:
    from distilora.cli.console import print_table
    from distilora.evaluation.audit import TITLES

    rows = [(TITLES[reason].lower(), f"{count:,}") for reason, count in summary["issues"].items()]
    print_table(f"{summary['source']}: {sum(summary['rows'].values()):,} rows", rows)
    if summary["run"]:
        run = summary["run"]
        print(f"{run['name']} answered {run['answered']:,} rows; of {run['seen']:,} it has seen the text or a copy")
    print(f"\nThe report: {folder}/audit.html; for Label Studio: {folder}/tasks.json, {folder}/labels.xml")


def _print_applied(output: str, counts: dict[str, int]) -> None:
    from distilora.cli.console import print_table

    names = {
        "changed": "labels changed",
        "kept": "labels confirmed",
        "unanswered": "tasks without an answer",
        "refused": "refused: the row has changed since the audit",
        "elsewhere": "of other splits, not applied",
    }
    print_table(f"{output}: {counts['rows']:,} rows", [(name, f"{counts[key]:,}") for key, name in names.items()])
