"""Fixtures that start workers, for the directories whose conftest.py takes them in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers import tasks
from tests.workers.harness import Ledger, Start, Worker


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv(tasks.LEDGER, str(tmp_path))
    return Ledger(tmp_path)


@pytest.fixture
def start(ledger: Ledger, child_environment: dict[str, str]) -> Iterator[Start]:
    """Starts workers; what is left of them is ended with the test, which fails if they did."""
    workers: list[Worker] = []
    child_environment[tasks.LEDGER] = str(ledger.directory)
    child_environment["DJANGO_SETTINGS_MODULE"] = "tests.workers.settings"

    def start(
        *arguments: str, settings: dict[str, Any] | None = None, **environment: str
    ) -> Worker:
        given = child_environment | environment
        given["TASKSETS_TEST_WORKER_SETTINGS"] = json.dumps(settings or {})
        log = ledger.directory / f"worker-{len(workers)}.log"
        workers.append(Worker(arguments, given, log))
        return workers[-1]

    yield start
    for worker in workers:
        worker.end()
    for worker in workers:
        if not worker.fails:
            _, found, rest = worker.log.partition("Traceback")
            assert not found, rest[:5000]
