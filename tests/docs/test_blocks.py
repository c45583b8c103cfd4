"""The code in the documentation runs, and does what is said of it."""

from __future__ import annotations

import pytest
from django.core.checks import CheckMessage
from django.test import override_settings

from django_tasksets.checks import check_settings
from tests.docs.pages import PAGES, Block, Page
from tests.docs.scenes import SCENES, nothing

WITH_CODE = [page for page in PAGES if any(page.blocks("python"))]


@pytest.mark.parametrize(
    "block", [block for page in PAGES for block in page.blocks("python")], ids=str
)
def test_code_is_python(block: Block) -> None:
    assert block.tree().body


def test_code_is_marked_as_what_it_is() -> None:
    known = ("python", "console", "ini", "sql", "html", "js", "text", "{eval-rst}", "{toctree}")
    for page in PAGES:
        assert page.text.count("```") == 2 * len(list(page.blocks(*known))), page


def test_every_scene_has_its_page() -> None:
    assert SCENES.keys() <= {page.path for page in WITH_CODE}


@pytest.mark.django_db
@pytest.mark.parametrize("page", WITH_CODE, ids=str)
def test_code_runs(page: Page, apart: None) -> None:
    with SCENES.get(page.path, nothing)() as names:
        page.run(names)
        assert settings_messages(names) == []


def settings_messages(names: dict[str, object]) -> list[CheckMessage]:
    """What `manage.py check` says about the page's settings."""
    with override_settings(TASKSETS=names.get("TASKSETS", {})):
        return check_settings()
