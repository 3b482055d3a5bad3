"""Names of models, which stand in addresses, metrics and logs."""

import re

from distilora.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str, what: str = "name") -> str:
    """Return a model's name. Raises ConfigError for one that could not stand in an address."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what}: {name!r:.80} given, up to 64 letters, digits and . _ - wanted; name it with NAME=RUN"
        )
    return name
