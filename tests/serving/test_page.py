"""The page at `/` in a real browser: typed, seen, uploaded, downloaded, refused, with the keyboard, on a phone, in the dark.

Needs Debian's Chromium and Playwright for Python. AXE_CORE names axe-core's axe.min.js, DISTILORA_PAGE a running service to test
(at `/`, with a model of films' reviews first, without a key) instead of the stand-in, DISTILORA_SCREENSHOTS a folder to write its
picture page.png to: docs, for the README's.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.stand_in_service import PAGE, StandIn

playwright = pytest.importorskip("playwright.sync_api")
expect, Page, Route = playwright.expect, playwright.Page, playwright.Route

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browsers = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
slow = pytest.mark.slow
REVIEW = "A slow start and a wooden hero, but the last hour is gripping, beautifully shot and simply superb."
LONG = "The plot is warm. " * 30 + "The end is superb."
LARGEST = 60_000  # bytes of the whole page


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


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    service = StandIn()
    yield service
    service.shutdown()


@pytest.fixture
def canned(stand_in: StandIn) -> StandIn:
    """The stand-in, for a test of its models and figures."""
    if os.environ.get("DISTILORA_PAGE"):
        pytest.skip("needs the stand-in's models; DISTILORA_PAGE names another service")
    return stand_in


@pytest.fixture(scope="module")
def address(stand_in: StandIn) -> str:
    return os.environ.get("DISTILORA_PAGE") or stand_in.address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Callable[..., Page]]:
    """Opens the page; fails afterwards if anything was blocked by the policy, thrown, or fetched from elsewhere."""
    wrong: list[str] = []
    contexts = []

    def opening(wait: bool = True, **settings: Any) -> Page:
        context = browser.new_context(locale="en-GB", accept_downloads=True, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text) if "Content Security Policy" in told.text else None)
        page.on(
            "request", lambda one: None if one.url.startswith((address, "data:", "blob:")) else wrong.append(one.url)
        )
        if wait:
            page.goto(address)
            page.get_by_label("Text", exact=True).wait_for()
        return page

    yield opening
    for context in contexts:
        context.close()
    assert wrong == []


def ask(page: Page, text: str = REVIEW) -> None:
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Answer", exact=True).click()
    page.locator("#answer").wait_for()


def choose(page: Page, model: str) -> None:
    page.get_by_label("Model", exact=True).select_option(model)
    expect(page.get_by_role("heading", level=1)).to_have_text(model)


def refuse(page: Page, path: str, *answers: dict | None) -> list[Route]:
    """Answer the next requests to a path so, None: let through; whatever comes then is let through, too."""
    seen: list[Route] = []

    def handle(route: Route) -> None:
        answer = answers[len(seen)] if len(seen) < len(answers) else None
        seen.append(route)
        if answer is None:
            route.continue_()
        elif answer.get("abort"):
            route.abort("connectionrefused")
        elif "lines" in answer:
            body = "".join(json.dumps(line) + "\n" for line in answer["lines"])
            route.fulfill(status=200, headers={"content-type": "application/x-ndjson"}, body=body)
        else:
            error = {"error": {"kind": answer["kind"], "message": answer["message"], "field": answer.get("field")}}
            headers = {"content-type": "application/json", **answer.get("headers", {})}
            route.fulfill(status=answer["status"], headers=headers, body=json.dumps(error))

    page.route(f"**/{path}", handle)
    return seen


def upload(page: Page, name: str, content: bytes) -> None:
    page.get_by_label("A csv or tsv file").set_input_files({"name": name, "mimeType": "text/csv", "buffer": content})


def downloaded(page: Page) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download the answers").click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


@slow
@browsers
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


@slow
@browsers
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


@slow
@browsers
def test_what_is_unsure_is_said_to_be(opened: Callable[..., Page], canned: StandIn) -> None:
    page = opened()
    ask(page, "last start of it")
    expect(page.locator(".verdict")).to_contain_text("Not sure")
    expect(page.locator("#answer")).to_contain_text("less than 10 percentage points apart")
    ask(page, "superb, abstain")
    expect(page.locator(".verdict")).to_contain_text("Not sure")
    expect(page.locator("#answer")).to_contain_text("abstains")


@slow
@browsers
def test_a_long_text_is_explained_on_demand(opened: Callable[..., Page]) -> None:
    page = opened()
    ask(page, LONG)
    expect(page.locator(".word")).to_have_count(0)
    page.get_by_role("button", name="Show where it comes from").click()
    expect(page.locator(".text .word")).to_have_count(len(LONG.split()))


@slow
@browsers
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


@slow
@browsers
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


@slow
@browsers
def test_a_text_file_may_be_dropped(opened: Callable[..., Page]) -> None:
    page = opened()
    data = page.evaluate_handle("new DataTransfer()")
    data.evaluate("data => data.items.add(new File(['dull film'], 'a.txt', {type: 'text/plain'}))")
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    expect(page.locator(".verdict")).to_contain_text("negative")
    expect(page.get_by_label("Text", exact=True)).to_have_value("dull film")


@slow
@browsers
def test_a_table_is_answered_and_downloaded(opened: Callable[..., Page], canned: StandIn) -> None:
    table = (
        "\ufeffid;Text;label\r\n"
        '1;"superb; and ""so"" on";=1+1\r\n'
        '2;"two\r\nlines, dull";x\r\n'
        "3;;x\r\n"
        "4;unreadable;x\r\n"
        "5;one;cell;more\r\n"
        "\r\n"
        "6;love;x\r\n"
    )
    page = opened()
    upload(page, "reviews.csv", table.encode())
    expect(page.get_by_label("Texts are in")).to_have_value("1")
    expect(page.locator("blockquote")).to_have_text('superb; and "so" on')
    page.get_by_role("button", name="Answer 6 rows").click()
    expect(page.locator("#table-work")).to_contain_text("3 of 6 rows answered, 3 rows without an answer.")
    expect(page.get_by_role("region", name="Line, Why")).to_contain_text("no text")
    expect(page.get_by_role("region", name="Line, Why")).to_contain_text("4 cells under 3 columns")
    name, content = downloaded(page)
    assert name == "reviews.answered.csv"
    lines = content.decode().split("\r\n")
    assert lines[0] == "\ufeffid;Text;label;predicted_label;score;abstain;p_negative;p_positive;error"
    assert lines[1].startswith(
        '1;"superb; and ""so"" on";=1+1;positive;0.8698915256370021;false;0.13'
    )  # own cells are as they were
    assert lines[2:4] == ['2;"two', lines[3]]
    assert lines[3].startswith('lines, dull";x;negative;')
    assert lines[4] == "3;;x;;;;;;no text"
    assert lines[5] == "4;unreadable;x;;;;;;'=this text cannot be read"  # no formula
    assert lines[6].startswith("5;one;cell;more;;;;;;4 cells")
    assert lines[7].startswith("6;love;x;positive;")
    assert lines[8:] == [""]


@slow
@browsers
def test_a_table_can_be_cancelled_and_gone_on_with(opened: Callable[..., Page], canned: StandIn) -> None:
    page = opened()
    upload(page, "long.tsv", ("review\tn\n" + "".join(f"superb film\t{i}\n" for i in range(300))).encode())
    canned.seconds_a_line = 0.01
    page.get_by_role("button", name="Answer 300 rows").click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    canned.seconds_a_line = 0.0
    expect(page.locator("#table-work")).to_contain_text("Cancelled.")
    refuse(page, "v1/classify?**", None, {"abort": True})
    page.get_by_role("button", name="Go on with the rest").click()
    expect(page.locator("#table-work")).to_contain_text("The service cannot be reached.")
    page.get_by_role("button", name="Go on with the rest").click()
    expect(page.locator("#table-work")).to_contain_text("300 of 300 rows answered.")
    _, content = downloaded(page)
    lines = content.decode().splitlines()
    assert len(lines) == 301
    assert [line.split("\t")[1] for line in lines[1:]] == [str(i) for i in range(300)]
    assert all("positive" in line for line in lines[1:])


@slow
@browsers
def test_a_table_waits_while_the_service_is_busy_or_stops(opened: Callable[..., Page]) -> None:
    page = opened()
    busy = {"status": 429, "kind": "overloaded", "message": "the queue is full", "headers": {"retry-after": "1"}}
    answer = {"label": "positive", "score": 0.9, "labels": [], "truncated": False}
    stopping = {"error": {"kind": "draining", "message": "the service is being stopped", "field": None}}
    seen = refuse(page, "v1/classify?**", busy, {"lines": [answer, stopping]})
    upload(page, "a.csv", b"text\nsuperb\ndull\nlove\n")
    page.get_by_role("button", name="Answer 3 rows").click()
    expect(page.locator("#table-work")).to_contain_text("The service is busy. Going on in 1 second.")
    expect(page.locator("#table-work")).to_contain_text("the service is being stopped")
    expect(page.locator("#table-work")).to_contain_text("1 of 3 rows answered.")
    page.get_by_role("button", name="Go on with the rest").click()
    expect(page.locator("#table-work")).to_contain_text("3 of 3 rows answered.")
    assert seen[-1].request.post_data == '"dull"\n"love"\n'


@slow
@browsers
def test_a_row_that_spoils_its_portion_is_left_out(opened: Callable[..., Page]) -> None:
    named = {"status": 422, "kind": "too_long", "message": "input[1]: too long", "field": "input[1]"}
    unnamed = {"status": 413, "kind": "too_large", "message": "body: too large"}
    page = opened()
    refuse(page, "v1/classify?**", named, unnamed, unnamed)  # without row 2: 1, 3, 4; halved: 1 alone
    upload(page, "a.csv", b"text\nsuperb\nlong\ndull\nlove\n")
    page.get_by_role("button", name="Answer 4 rows").click()
    expect(page.locator("#table-work")).to_contain_text("2 of 4 rows answered, 2 rows without an answer.")
    rows = page.get_by_role("region", name="Line, Why")
    expect(rows).to_contain_text("too long")
    expect(rows).to_contain_text("too large")


@slow
@browsers
def test_tables_are_read_and_written(opened: Callable[..., Page]) -> None:
    page = opened()

    def parsed(text: str) -> Any:
        code = (
            "async (text) => { const {parse, textColumn} = await import('/page/csv.js'); try { const t = parse(text); "
        )
        code += "return [t.separator, t.header, t.rows.map((row) => row.cells), textColumn(t.header, t.rows)]; } "
        return page.evaluate(code + "catch (error) { return error.message; } }", text)

    assert parsed("a,b\n1,2\n3,4") == [",", ["a", "b"], [["1", "2"], ["3", "4"]], 0]
    assert parsed("a\tb,c\r1\t2,3\r") == ["\t", ["a", "b,c"], [["1", "2,3"]], 1]
    assert parsed("n|text\n1|x\n") == ["|", ["n", "text"], [["1", "x"]], 1]
    assert parsed("text\nWell, now\nno\n\n")[2] == [["Well, now"], ["no"]]  # one column with commas inside
    assert parsed('a,b\n"x\ny",\n,') == [",", ["a", "b"], [["x\ny", ""], ["", ""]], 0]
    assert parsed(',b\n1,"long long"') == [",", ["unnamed_1", "b"], [["1", "long long"]], 1]
    assert parsed('a,b\n1,"open\n') == "Line 2: a quote is opened and never closed. Check the quotes of that line."
    assert parsed("a,a\n1,2") == "Two columns are called “a”. Rename one."
    assert "first line that names its columns" in parsed("a,b")
    assert "first line that names its columns" in parsed("")
    harmless = page.evaluate(
        "async (cells) => cells.map((await import('/page/csv.js')).harmless)",
        ["=1", "+a", "-1.5", "-a", "@x", "pos", "1e-9"],
    )
    assert harmless == ["'=1", "'+a", "-1.5", "'-a", "'@x", "pos", "1e-9"]
    upload(page, "a.csv", "text\ncafé\n".encode("latin-1"))
    expect(page.locator("#file-error")).to_contain_text("not UTF-8")
    upload(page, "a.csv", "text\ncafé\n".encode("utf-16"))
    expect(page.locator("blockquote")).to_have_text("café")


@slow
@browsers
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


@slow
@browsers
def test_a_key_is_asked_for_when_the_service_wants_one(opened: Callable[..., Page], address: str) -> None:
    page = opened(wait=False)
    refusal = {"status": 401, "kind": "unauthorised", "message": "no key"}
    seen = refuse(page, "v1/models", refusal, refusal)
    page.goto(address)
    field = page.get_by_label("API key")
    expect(field).to_be_focused()
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-error")).to_contain_text("refused")
    field.fill("right")
    page.keyboard.press("Enter")
    page.get_by_label("Text", exact=True).wait_for()
    expect(page.locator("#key")).to_be_hidden()
    assert [route.request.headers.get("authorization") for route in seen] == [None, "Bearer wrong", "Bearer right"]
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]


@slow
@browsers
def test_errors_are_told_where_they_belong(opened: Callable[..., Page]) -> None:
    page = opened()
    text, send = page.get_by_label("Text", exact=True), page.get_by_role("button", name="Answer", exact=True)
    send.click()
    expect(page.locator("#text-error")).to_have_text("Type or paste a text first.")
    expect(text).to_be_focused()
    long = {"status": 422, "kind": "too_long", "message": "input[0]: 100,001 characters", "field": "input[0]"}
    large = {"status": 413, "kind": "too_large", "message": "body: more than 2,000,000 bytes"}
    stopping = {"status": 503, "kind": "draining", "message": "the service is stopping"}
    seen = refuse(page, "v1/classify", long, long, large, stopping, {"abort": True})
    text.fill("superb film")
    send.click()  # asked with an explanation, then without
    expect(page.locator("#text-error")).to_have_text("input[0]: 100,001 characters")
    assert text.get_attribute("aria-invalid") == "true"
    assert len(seen) == 2
    send.click()
    expect(page.locator("#text-error")).to_contain_text("too large for this service")
    send.click()
    expect(page.locator("#problem")).to_contain_text("stopping or not ready")
    assert text.get_attribute("aria-invalid") is None
    send.click()
    expect(page.locator("#problem")).to_contain_text("cannot be reached")
    expect(text).to_have_value("superb film")
    send.click()
    expect(page.locator(".verdict")).to_contain_text("positive")
    expect(page.locator("#problem")).to_be_empty()


@slow
@browsers
def test_a_busy_service_is_waited_for(opened: Callable[..., Page]) -> None:
    page = opened()
    busy = {"status": 429, "kind": "overloaded", "message": "the queue is full", "headers": {"retry-after": "1"}}
    refuse(page, "v1/classify", busy)
    page.get_by_label("Text", exact=True).fill("superb film")
    page.get_by_role("button", name="Answer", exact=True).click()
    expect(page.locator("#status")).to_have_text("The service is busy. Trying again in 1 s.")
    expect(page.locator(".verdict")).to_contain_text("positive")
    expect(page.locator("#status")).to_be_empty()


@slow
@browsers
def test_a_service_that_is_away_can_be_tried_again(opened: Callable[..., Page], address: str) -> None:
    page = opened(wait=False)
    refuse(page, "v1/models", {"abort": True})
    page.goto(address)
    expect(page.locator("#outage")).to_contain_text("cannot be reached")
    page.get_by_role("button", name="Try again").click()
    page.get_by_label("Text", exact=True).wait_for()
    expect(page.locator("#outage")).to_be_hidden()


@slow
@browsers
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


@slow
@browsers
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


@slow
@browsers
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


@slow
@browsers
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
