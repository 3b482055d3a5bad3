"""Tables on the page: read, answered row by row, gone on with after whatever happens, and downloaded."""

from collections.abc import Callable
from typing import Any

from support.browsing import Page, browsed, downloaded, expect, refuse, upload
from support.stand_in_service import StandIn

pytestmark = browsed


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
