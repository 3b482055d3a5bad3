"""The page's files: small, and within the policy under which they are served."""

import re

from support.stand_in_service import PAGE

LARGEST = 64_000  # bytes of the whole page


def test_the_page_is_small_and_complies_with_its_policy() -> None:
    files = list(PAGE.iterdir())
    assert sum(file.stat().st_size for file in files) < LARGEST
    html = (PAGE / "index.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", html)
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", html)
    code = "".join(file.read_text("utf-8") for file in files if file.suffix == ".js")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|localStorage", code
    )
    assert max(len(file.read_text("utf-8").splitlines()) for file in files) <= 350
