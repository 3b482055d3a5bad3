"""Refusals on the page: a key that is wanted, errors where they belong, a service that is busy or away."""

from collections.abc import Callable

from support.browsing import Page, browsed, expect, refuse

pytestmark = browsed


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


def test_a_busy_service_is_waited_for(opened: Callable[..., Page]) -> None:
    page = opened()
    busy = {"status": 429, "kind": "overloaded", "message": "the queue is full", "headers": {"retry-after": "1"}}
    refuse(page, "v1/classify", busy)
    page.get_by_label("Text", exact=True).fill("superb film")
    page.get_by_role("button", name="Answer", exact=True).click()
    expect(page.locator("#status")).to_have_text("The service is busy. Trying again in 1 s.")
    expect(page.locator(".verdict")).to_contain_text("positive")
    expect(page.locator("#status")).to_be_empty()


def test_a_service_that_is_away_can_be_tried_again(opened: Callable[..., Page], address: str) -> None:
    page = opened(wait=False)
    refuse(page, "v1/models", {"abort": True})
    page.goto(address)
    expect(page.locator("#outage")).to_contain_text("cannot be reached")
    page.get_by_role("button", name="Try again").click()
    page.get_by_label("Text", exact=True).wait_for()
    expect(page.locator("#outage")).to_be_hidden()
