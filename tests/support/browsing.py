"""A person at the page, in a real browser: types, chooses, uploads, downloads, and is refused.

Needs Debian's Chromium and Playwright for Python; a test file that imports this is skipped without.
"""

import json
import shutil
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")
expect, Page, Route = playwright.expect, playwright.Page, playwright.Route

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browsed = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
REVIEW = "A slow start and a wooden hero, but the last hour is gripping, beautifully shot and simply superb."


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
