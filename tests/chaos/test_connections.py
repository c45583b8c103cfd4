"""Connections that are cut, at any statement and between a commit and its answer."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Self

import pytest
from django.db import Error, connection, connections

from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.workers.harness import Ledger, Start
from tests.workers.proxy import (
    COMMIT,
    CuttingForwarder,
    place_of_the_server,
)

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS: Final = scale.size(5.0, 90.0)
EVERY: Final = 0.2
"""How often a connection is cut, in seconds."""
CHANCE: Final = 0.05
"""How many of the commits are not answered."""
MEMBERS: Final = 20
OTHERS: Final = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
    "AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND pid <> %s",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = database() "
    "AND id <> connection_id() AND id <> %s",
}
CUT: Final = {"postgresql": "SELECT pg_terminate_backend(%s)", "mysql": "KILL %s"}
ME: Final = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}


class Cutter(threading.Thread):
    """Has the server end one connection after the other; those of the calling thread, and its
    own, excepted."""

    def __init__(self) -> None:
        super().__init__()
        self._random = scale.generator("cuts")
        self._spared = ask(ME[connection.vendor])[0]
        self._stopping = threading.Event()
        self.cuts = 0

    def run(self) -> None:
        while not self._stopping.wait(EVERY):
            # One that has just ended by itself is no longer there.
            with suppress(Error):
                self._cut()
        connections.close_all()

    def _cut(self) -> None:
        others = ask(OTHERS[connection.vendor], self._spared)
        if others:
            ask(CUT[connection.vendor], self._random.choice(others))
            self.cuts += 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.join()


def ask(statement: str, *parameters: int) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return [number for (number,) in cursor.fetchall()]


@pytest.mark.experiment(
    "The server ends 5 connections of workers a second", on=("postgresql", "mysql")
)
@pytest.mark.timeout(180 + SECONDS)
def test_cut_connections_lose_nothing_and_double_nothing(
    start: Start, ledger: Ledger, report: Report
) -> None:
    workers = [start("--processes", "2", "-v0") for _ in range(2)]
    pids = [worker.wait_for_processes(2) for worker in workers]
    with Cutter() as cutter, load.Stream(MEMBERS, longest=0.05, pause=0.15) as stream:
        time.sleep(SECONDS)
    took = load.wait_for_the_end(120)

    assert [worker.wait_for_processes(2) for worker in workers] == pids, "a process has ended"
    load.stop_all(*workers)
    found = oracle.check(ledger)
    assert len(stream.results) <= found.sets <= len(stream.results) + stream.failures
    assert all(result.successful() for result in stream.results)
    assert cutter.cuts > SECONDS
    report(
        f"{cutter.cuts} connections cut in {SECONDS:.0f} s; {found.sets:,} sets of {MEMBERS}, done "
        f"{took:.1f} s after the last, 0 lost, 0 doubled, {found.again} executed again, "
        "no process ended"
    )


@pytest.fixture
def cutting() -> Iterator[CuttingForwarder]:
    # Where a claim is a statement by itself, nothing commits it but that.
    marks = (COMMIT, re.compile(rb"SET status = 'RUNNING'"))
    forwarder = CuttingForwarder(*place_of_the_server(), marks, CHANCE)
    forwarder.begin()
    yield forwarder
    forwarder.end()


@pytest.mark.experiment(
    "The connection is cut between a commit and its answer", on=("postgresql", "mysql")
)
@pytest.mark.timeout(180 + SECONDS)
def test_an_outcome_that_nobody_is_told_counts_once(
    start: Start, ledger: Ledger, cutting: CuttingForwarder, report: Report
) -> None:
    workers = [
        start("--processes", "2", "-v0", settings={}, **cutting.environment) for _ in range(2)
    ]
    for worker in workers:
        worker.wait_for_processes(2)
    with load.Stream(MEMBERS, longest=0.05, pause=0.15) as stream:
        time.sleep(SECONDS)
    took = load.wait_for_the_end(120)

    load.stop_all(*workers)
    found = oracle.check(ledger)
    assert found.sets == len(stream.results)
    assert all(result.successful() for result in stream.results)
    assert cutting.cuts > 0
    report(
        f"{cutting.cuts} commits without an answer in {SECONDS:.0f} s; {found.sets:,} sets of "
        f"{MEMBERS}, done {took:.1f} s after the last, 0 lost, 0 doubled, {found.again} executed "
        "again"
    )
