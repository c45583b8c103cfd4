"""Real workers, started and ended with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.running import Files, Start


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def start(child_environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts workers; checks that none of their processes is left when they have ended."""
    starting = Start(child_environment, tmp_path)
    try:
        yield starting
    finally:
        starting.end_all()
