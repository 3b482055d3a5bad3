"""Answers on the page: of each task, with their words and places, corrected, and beside what was measured.

DISTILORA_SCREENSHOTS names a folder for the picture page.png, which goes to docs for the README, of the service at DISTILORA_PAGE.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.browsing import Page, ask, browsed, choose, expect, refuse
from support.stand_in_service import StandIn

pytestmark = browsed
LONG = "The plot is warm. " * 30 + "The end is superb."


def test_a_typed_text_is_answered_with_its_words(opened: Callable[..., Page], canned: StandIn) -> None:
    page = opened()
    expect(page.locator("#purpose")).to_contain_text("negative, positive")
    ask(page)
    expect(page.locator(".verdict")).to_contain_text("positive")
    expect(page.locator("#answer")).to_contain_text("of 100 texts answered with this probability")
    expect(page.locator("#spoken")).to_contain_text("positive, 93%.")
    assert "for" in page.locator(".word", has_text="superb").get_attribute("class").split()
    assert "against" in page.locator(".word", has_text="slow").get_attribute("class").split()
    style = "e => getComputedStyle(e).textDecorationStyle"
    lines = [page.locator(".text .word", has_text=word).evaluate(style) for word in ("superb", "slow")]
    assert lines == ["solid", "dashed"]  # not by colour alone
    page.locator(".text .word", has_text="slow").hover()
    expect(page.locator(".detail")).to_have_text("slow: \N{MINUS SIGN}0.042 against positive")
    page.get_by_text("Heaviest words as a table").click()
    expect(page.get_by_role("cell", name="superb.")).to_be_visible()


def test_a_model_is_called_calibrated_where_that_was_measured(opened: Callable[..., Page], canned: StandIn) -> None:
    page = opened()
    answer = page.locator("#answer")
    ask(page)
    expect(answer).to_contain_text("It is calibrated")
    choose(page, "genres")
    ask(page)
    expect(answer).to_contain_text("Its calibration error, 0.31, says how far")
    expect(answer).not_to_contain_text("It is calibrated")
    choose(page, "moods")
    ask(page)
    expect(answer).to_contain_text("is the model's own probability.")
    expect(answer).not_to_contain_text("calibrat")


def test_what_is_unsure_is_said_to_be(opened: Callable[..., Page], canned: StandIn) -> None:
    page = opened()
    ask(page, "last start of it")
    expect(page.locator(".verdict")).to_contain_text("Not sure")
    expect(page.locator("#answer")).to_contain_text("less than 10 percentage points apart")
    ask(page, "superb, abstain")
    expect(page.locator(".verdict")).to_contain_text("Not sure")
    expect(page.locator("#answer")).to_contain_text("abstains")


def test_a_long_text_is_explained_on_demand(opened: Callable[..., Page]) -> None:
    page = opened()
    ask(page, LONG)
    expect(page.locator(".word")).to_have_count(0)
    page.get_by_role("button", name="Show where it comes from").click()
    expect(page.locator(".text .word")).to_have_count(len(LONG.split()))


def test_places_are_those_of_characters(opened: Callable[..., Page], canned: StandIn) -> None:
    page = opened()
    ask(page, "\N{GRINNING FACE}\N{GRINNING FACE} so\n\n<b>superb</b>  film unread")
    words = page.locator(".text .word").evaluate_all("all => all.map((word) => word.firstChild.data)")
    assert words == ["\N{GRINNING FACE}\N{GRINNING FACE}", "so", "<b>superb</b>", "film", "unread"]
    expect(page.locator(".cut")).to_contain_text("not read")
    choose(page, "answers")
    page.get_by_label("Question").fill("Who plays?")
    page.get_by_label("Text in which").fill("\N{GRINNING FACE} it has Greta Garbo in it")
    page.get_by_role("button", name="Find the answer").click()
    expect(page.locator("mark")).to_have_text("Greta Garbo")


def test_each_task_has_its_form_and_answer(opened: Callable[..., Page], canned: StandIn) -> None:
    page = opened()
    choose(page, "answers")
    page.get_by_role("button", name="Find the answer").click()
    expect(page.locator("#question-error")).to_have_text("Type a question first.")
    page.get_by_label("Question").fill("Who plays?")
    page.get_by_label("Text in which").fill("nobody at all")
    page.get_by_role("button", name="Find the answer").click()
    expect(page.locator(".verdict")).to_contain_text("No answer in this text")
    expect(page.locator("#table")).to_be_hidden()

    choose(page, "sums")
    page.get_by_label("Text", exact=True).fill("One is first. Two is second. Three is third.")
    page.get_by_label("Sentences").fill("1")
    page.get_by_role("button", name="Summarise").click()
    expect(page.locator("mark")).to_have_text(["One is first."])
    assert canned.asked[-1][1]["sentences"] == 1

    choose(page, "topics")
    ask(page, "the music and the plot")
    expect(page.locator(".verdict")).to_have_text(re.compile("music, plot|plot, music"))

    choose(page, "stars")
    ask(page, "superb")
    expect(page.locator(".verdict")).to_contain_text("8.8")
    expect(page.locator("#about")).to_contain_text("Mean absolute error")


def test_a_text_file_may_be_dropped(opened: Callable[..., Page]) -> None:
    page = opened()
    data = page.evaluate_handle("new DataTransfer()")
    data.evaluate("data => data.items.add(new File(['dull film'], 'a.txt', {type: 'text/plain'}))")
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    expect(page.locator(".verdict")).to_contain_text("negative")
    expect(page.get_by_label("Text", exact=True)).to_have_value("dull film")


def test_a_correction_is_kept(opened: Callable[..., Page], canned: StandIn) -> None:
    page = opened()
    ask(page, "superb, they said")
    page.get_by_role("button", name="This is wrong").click()
    page.get_by_role("button", name="Keep the correction").click()
    expect(page.locator("#answer")).to_contain_text("Choose what would have been right.")
    page.get_by_label("Right is").select_option("negative")
    refuse(
        page, "v1/corrections", {"status": 507, "kind": "corrections_full", "message": "corrections: the file is full"}
    )
    page.get_by_role("button", name="Keep the correction").click()
    expect(page.locator("#answer")).to_contain_text("the file is full")
    page.get_by_role("button", name="Keep the correction").click()
    expect(page.locator("#answer")).to_contain_text("Kept as negative")
    sent = {"model": "imdb", "input": "superb, they said", "answer": "positive", "correction": "negative"}
    assert canned.asked[-1] == ("/v1/corrections", sent)
    choose(page, "topics")
    ask(page, "the music")
    page.get_by_role("button", name="This is wrong").click()
    page.get_by_label("plot").check()
    page.get_by_role("button", name="Keep the correction").click()
    expect(page.locator("#answer")).to_contain_text("Kept as music, plot")
    assert canned.asked[-1][1]["correction"] == ["music", "plot"]


def test_the_card_tells_what_was_measured(opened: Callable[..., Page], canned: StandIn) -> None:
    page = opened()
    about = page.locator("#about")
    expect(about).to_contain_text("94.0%")
    expect(about).to_contain_text("93.8 to 94.3")
    expect(about.get_by_role("img", name=re.compile("^Reliability"))).to_be_visible()
    expect(about.locator("circle")).to_have_count(8)
    about.get_by_text("As a table", exact=True).click()
    expect(about.get_by_role("cell", name="1,624")).to_be_visible()
    about.get_by_text("The whole card").click()
    expect(about).to_contain_text("one <b>item</b>")  # text, never markup
    expect(about.get_by_role("cell", name="94.04% (93.75 to 94.32)")).to_be_visible()
    assert "library_name" not in about.inner_text()


@pytest.mark.skipif(
    not {"DISTILORA_SCREENSHOTS", "DISTILORA_PAGE"} <= set(os.environ),
    reason="a picture shows a real model: DISTILORA_PAGE names the service, DISTILORA_SCREENSHOTS the folder",
)
def test_the_picture_of_the_readme(opened: Callable[..., Page]) -> None:
    page = opened(viewport={"width": 1060, "height": 1010})
    ask(page)
    page.locator("h1").click()  # nothing is focused
    page.locator(".text .word", has_text="superb").hover()
    page.screenshot(path=Path(os.environ["DISTILORA_SCREENSHOTS"]) / "page.png")
