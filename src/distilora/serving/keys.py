"""Bearer keys: who asks, by a key of a file; every key is compared, each in constant time, so that the time tells nothing."""

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from distilora.errors import ConfigError

SHORTEST = 16  # characters of a key; 16 random ones of base64 are 96 bits
REMEDY = "make one with: openssl rand -hex 32"


class Keys:
    """Keys that are accepted, kept as SHA-256; false where there are none."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def shares(self, other: "Keys") -> bool:
        """Tell whether a key is one of another's, too."""
        return not set(self._digests).isdisjoint(other._digests)

    def holder(self, authorization: str | None) -> str | None:
        """Return a name for the holder of the key in an `Authorization: Bearer KEY` header; None if the key is unknown."""
        scheme, _, key = (authorization or "").partition(" ")
        digest = _digest(key.strip())
        matches = [hmac.compare_digest(digest, own) for own in self._digests]  # all of them, whichever matches
        return f"key-{digest.hex()[:12]}" if any(matches) and scheme.lower() == "bearer" else None


def read_keys(path: str | None, option: str) -> Keys:
    """Read a file of keys, one a line; blank lines and those that begin with # are left out. None: no keys.

    Raises ConfigError, naming the option and the line but never the key.
    """
    if path is None:
        return Keys()
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"{option}: {path} cannot be read ({reason}); give a text file with one key a line") from None
    keys = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip() and line.strip()[0] != "#"}
    for number, key in keys.items():
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ConfigError(
                f"{option}: line {number} of {path} is not one word of printable ASCII characters; {REMEDY}"
            )
        if len(key) < SHORTEST:
            raise ConfigError(
                f"{option}: line {number} of {path} has {len(key)} characters, at least {SHORTEST} wanted; {REMEDY}"
            )
    if not keys:
        raise ConfigError(f"{option}: {path} holds no key; {REMEDY}")
    return Keys(keys.values())


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
