"""Recognises the name of a repository on the Hugging Face Hub, OWNER/NAME."""

import re

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_hub_name(text: str) -> bool:
    """Tell whether a text may name a repository on the Hub; a path of two parts may, too."""
    return _NAME.fullmatch(text) is not None
