"""Refuses settings that are out of range, in one form of words."""

from distilora.errors import ConfigError

SEEDS = 2**63  # PyTorch takes a signed 64-bit integer


def require(holds: bool, name: str, value: object, requirement: str) -> None:
    """Raise ConfigError naming the setting, its value and what is wanted, unless that holds."""
    if not holds:
        raise ConfigError(f"{name}: {value!r} given, {requirement} wanted")


def require_two_columns(text: str | None, label: str | None) -> None:
    """Raise ConfigError if one column is given for text and label."""
    if text is not None and text == label:
        raise ConfigError(f"data.label_column: {label!r} is data.text_column, too; name another column")
