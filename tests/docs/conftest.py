"""A fixture for tests that run pages."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from django_tasksets import registry
from tests.docs.pages import PAGES


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What pages define is forgotten afterwards: their tasks, and the modules that they are."""
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))
    yield
    for page in PAGES:
        sys.modules.pop(page.module, None)
