"""The README is short, and its promise is the design's."""

from __future__ import annotations

import re

from tests.docs.pages import PAGES, ROOT, Page

README = Page("README.md")
PROMISE = (
    "subtask that was committed is executed at least once and its result is recorded once; each "
    "callback is released exactly once per set and generation; `taskset_finished` is sent at "
    "least once."
)


def test_it_fits_on_two_screens() -> None:
    assert len(README.text.splitlines()) <= 120


def test_the_promise_is_made_word_for_word() -> None:
    assert PROMISE in " ".join(README.text.split())


def test_from_the_setting_to_the_callback_it_takes_fifteen_lines() -> None:
    example = next(README.blocks("python")).code
    assert "INSTALLED_APPS" in example
    assert "on_success" in example
    lines = [line for line in example.splitlines() if line.partition("#")[0].strip()]
    assert len(lines) <= 15


def test_links_into_the_project_lead_somewhere() -> None:
    """Sphinx checks those between pages; the README is not one of its pages."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README.text):
        assert (ROOT / target).exists(), target


def test_every_page_has_one_title() -> None:
    for page in PAGES:
        titles = [line for line in page.prose.splitlines() if line.startswith("# ")]
        assert len(titles) == 1, page
