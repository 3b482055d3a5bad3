"""Keys: read from a file, compared all of them, shown nowhere."""

import hmac
from pathlib import Path

import pytest

from distilora.errors import ConfigError
from distilora.serving.keys import Keys, read_keys


def test_a_file_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\n\n  first-key-of-the-file  \nsecond-key-of-the-file\n")
    keys = read_keys(str(path), "--api-key-file")
    first, second = (keys.holder(f"Bearer {key}-key-of-the-file") for key in ("first", "second"))
    assert first != second
    assert first is not None
    assert second is not None
    assert keys.holder("Bearer # ours") is None
    assert not read_keys(None, "--api-key-file")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "holds no key"),
        (b"# nothing\n", "holds no key"),
        (b"short\n", "line 1 of "),
        (b"a-key-that-is-long-enough\nwith two words in it\n", "line 2 of "),
        ("a-key-with-an-umlaut-\u00e4".encode(), "printable ASCII"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_file_that_is_not_taken(content: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="--api-key-file: ") as caught:
        read_keys(str(path), "--api-key-file")
    assert part in str(caught.value)
    assert "umlaut" not in str(caught.value)
    assert "words" not in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        read_keys(str(tmp_path / "none"), "--api-key-file")


def test_every_key_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr("distilora.serving.keys.hmac.compare_digest", lambda a, b: compared.append(b) or real(a, b))
    keys = Keys(["first-key-of-three", "second-key-of-three", "third-key-of-three"])
    assert keys.holder("Bearer first-key-of-three") is not None
    assert keys.holder("Bearer no-key-of-these") is None
    assert keys.holder(None) is None
    assert len(compared) == 9


def test_keys_that_are_in_both_files() -> None:
    keys, others = Keys(["first-key-of-three", "second-key-of-three"]), Keys(["third-key-of-three"])
    assert keys.shares(Keys(["third-key-of-three", "second-key-of-three"]))
    assert not keys.shares(others)
    assert not keys.shares(Keys())
