"""The page for everybody: with the keyboard, on a phone, in the dark, and by the rules of axe-core.

AXE_CORE names axe-core's axe.min.js.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.browsing import REVIEW, Page, ask, browsed, choose, expect, upload

pytestmark = browsed


def test_the_keyboard_does_it_all(opened: Callable[..., Page]) -> None:
    page = opened()
    page.get_by_label("Text", exact=True).focus()
    page.keyboard.type("dull but superb")
    page.keyboard.press("Control+Enter")
    page.locator("#answer").wait_for()
    page.get_by_role("button", name="Answer", exact=True).focus()
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    expect(focused).to_contain_text("dull")
    assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    expect(page.locator(":focus")).to_contain_text("superb")
    expect(page.locator(".detail")).to_contain_text(re.compile(r"superb: .0\.\d{3} "))
    page.keyboard.press("Tab")  # one stop for all words
    assert page.locator(":focus").evaluate("e => e.tagName") == "SUMMARY"


@pytest.mark.parametrize("width", [320, 390])
def test_nothing_is_cut_off_on_a_phone(opened: Callable[..., Page], width: int) -> None:
    page = opened(viewport={"width": width, "height": 700}, has_touch=True, is_mobile=True)
    ask(page, REVIEW + " Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenfabrikationsleiter")
    for unfold in page.locator("#about summary").all():
        unfold.click()
    upload(page, "a.csv", b"text\nsuperb\n\xc3\xa4,b\n")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator(".word", has_text="superb").tap()
    expect(page.locator(".detail")).to_contain_text(re.compile(r"superb\.: .0\.\d{3} "))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened: Callable[..., Page], scheme: str) -> None:
    code = os.environ.get("AXE_CORE")
    if not code:
        pytest.skip("AXE_CORE does not name axe-core's axe.min.js (npm pack axe-core)")
    page = opened(color_scheme=scheme, viewport={"width": 1000, "height": 900})
    page.evaluate(Path(code).read_text("utf-8"))

    def check(state: str) -> None:
        for violation in page.evaluate("() => axe.run()")["violations"]:
            nodes = [node["html"] for node in violation["nodes"]][:3]
            assert violation["impact"] not in ("serious", "critical"), f"{state}: {violation['id']}: {nodes}"

    check("empty")
    page.get_by_role("button", name="Answer", exact=True).click()
    check("error")
    ask(page)
    page.get_by_text("Heaviest words").click()
    for unfold in ("This is wrong", "The whole card", "As a table"):  # a service may be without
        if page.get_by_text(unfold, exact=True).count():
            page.get_by_text(unfold, exact=True).click()
    check("answered")
    upload(page, "a.csv", b"text,n\nsuperb,1\n,2\n")
    check("table")
    page.get_by_role("button", name="Answer 2 rows").click()
    page.get_by_role("link", name="Download").wait_for()
    check("table answered")
    if os.environ.get("DISTILORA_PAGE"):
        return
    choose(page, "answers")
    page.get_by_label("Question").fill("Who plays?")
    page.get_by_label("Text in which").fill("It has Greta Garbo in it")
    page.get_by_role("button", name="Find the answer").click()
    page.locator("mark").wait_for()
    check("question")
    choose(page, "topics")
    ask(page, "the music")
    check("several labels")
