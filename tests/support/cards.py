"""Model cards of finished runs, and the code in them."""

import json
import re
from pathlib import Path


def card(folder: Path) -> str:
    return (folder / "README.md").read_text("utf-8")


def snippet(folder: Path, texts: list[str]) -> str:
    """The card's ten lines, with `texts` to answer, left in `probabilities`."""
    (lines,) = re.findall(r"```python\n(.*?)```", card(folder), re.DOTALL)
    assert 8 <= len(lines.splitlines()) <= 14
    assert lines.count('["A text to judge."]') == 1
    return lines.replace('["A text to judge."]', json.dumps(texts)).replace("print(", "probabilities = (")
