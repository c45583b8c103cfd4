"""A real browser, driven by Playwright; it is on this machine or these tests are not run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client

from tests import services

BROWSER = "TASKSETS_TEST_BROWSER"
"""The environment variable that says where Chromium is, if it is not found by its name."""
PATIENCE = 15_000
"""How long anything may take, in milliseconds."""


def _absent(reason: str) -> None:
    if services.under_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser, for the tests of one module.

    Not longer: Playwright has an event loop running in this thread for as long as it lives, which
    Django's ORM refuses to work under, and tests of async code too.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        _absent(f"Playwright is not installed ({error})")
        raise
    names = (os.environ.get(BROWSER), "chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if name and (found := shutil.which(name))), None)
    if program is None:
        _absent(f"Chromium is not installed; {BROWSER} may say where it is")
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            yield browser
            browser.close()
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
        if before is not None:
            os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = before


class Visit:
    """A tab in which a superuser has signed in, and what went wrong in it."""

    def __init__(self, context: Any, address: str) -> None:
        self.address = address
        self.complaints: list[str] = []
        self.asked: list[str] = []
        """Where the bars have asked."""
        self.page = context.new_page()
        self.page.clock.install()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.page.on("request", self._asks)

    def go(self, path: str) -> Any:
        """To a page of the site. It is marked, so that one can tell whether it was loaded anew."""
        self.page.goto(self.address + path)
        self.page.evaluate("window.tasksetsWasHere = true")
        return self.page

    def pass_time(self, seconds: float) -> None:
        """What waits for a time to pass in the page happens now."""
        self.page.clock.run_for(round(seconds * 1000))

    def was_loaded_anew(self) -> bool:
        """Whether it is another page than the one that was gone to."""
        return not self.page.evaluate("window.tasksetsWasHere === true")

    def _heard(self, message: Any) -> None:
        is_ours = "favicon" not in message.location["url"]
        if is_ours and message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asks(self, request: Any) -> None:
        if "progress.json" in request.url:
            self.asked.append(request.url)


@pytest.fixture
def new_visit(chromium: Any, live_server: Any) -> Iterator[Any]:
    """Make a Visit, with options of Playwright's contexts."""
    contexts = []

    def make(**options: Any) -> Visit:
        context = chromium.new_context(**options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        client = Client()
        users = get_user_model()._default_manager
        client.force_login(users.create_superuser(username=f"root{len(contexts)}"))
        cookie = client.cookies[settings.SESSION_COOKIE_NAME]
        context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": live_server.url}])
        return Visit(context, live_server.url)

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def visit(new_visit: Any) -> Visit:
    """A tab in an ordinary browser."""
    made: Visit = new_visit()
    return made
