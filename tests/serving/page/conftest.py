"""Fixtures of the page's tests: the service it is asked of, and the page opened in a browser.

DISTILORA_PAGE names a running service to test instead of the stand-in: at `/`, with a model of films' reviews first, without a key.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.stand_in_service import StandIn


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
    from support.browsing import CHROMIUM, playwright

    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page; fails afterwards if anything was blocked by the policy, thrown, or fetched from elsewhere."""
    wrong: list[str] = []
    contexts = []

    def opening(wait: bool = True, **settings: Any) -> Any:
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
