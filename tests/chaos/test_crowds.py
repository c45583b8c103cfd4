"""A server that has no connection left for its workers."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final, Self

import pytest
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.test_connections import CUT, ME, OTHERS, ask
from tests.workers.harness import Ledger, Start, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS: Final = scale.size(4.0, 30.0)
SUPERVISORS: Final = 2
PROCESSES: Final = scale.size(2, 16)
MEMBERS: Final = 20
RESUMED: Final = 30.0


class Crowd(threading.Thread):
    """Takes every connection that the server has to give, and those that become free."""

    def __init__(self) -> None:
        super().__init__()
        self._stopping = threading.Event()
        self._taken: list[BaseDatabaseWrapper] = []
        self.is_complete = threading.Event()
        """The server has refused one."""

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                taken = connections["default"].copy("crowd")
                taken.ensure_connection()
                self._taken.append(taken)
            except load.AWAY:
                self.is_complete.set()
                self._stopping.wait(0.01)
        for one in self._taken:
            with contextlib.suppress(*load.AWAY):
                one.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.join()

    @property
    def size(self) -> int:
        return len(self._taken)


@pytest.mark.experiment(
    "Others take all connections of the server, and workers lose those that they have",
    on=("postgresql", "mysql"),
)
@pytest.mark.timeout(240 + SECONDS)
def test_workers_wait_until_they_are_let_in(start: Start, ledger: Ledger, report: Report) -> None:
    workers = [start("--processes", f"{PROCESSES}", "-v0") for _ in range(SUPERVISORS)]
    pids = [worker.wait_for_processes(PROCESSES) for worker in workers]
    with load.Stream(MEMBERS, longest=0.1, pause=0.15) as stream:
        theirs = ask(OTHERS[connection.vendor], ask(ME[connection.vendor])[0])
        with Crowd() as crowd:
            assert crowd.is_complete.wait(30)
            for one in theirs:
                # Some have ended by themselves.
                with contextlib.suppress(*load.AWAY):
                    ask(CUT[connection.vendor], one)
            time.sleep(SECONDS)
            size = crowd.size
        known, began = len(stream.results), time.monotonic()
        wait_until(
            lambda: len(stream.results) > known and stream.results[known].ready(),
            "work that was enqueued afterwards",
            RESUMED,
        )
        resumed = time.monotonic() - began
    took = load.wait_for_the_end(120)

    assert [worker.wait_for_processes(PROCESSES) for worker in workers] == pids, "one has ended"
    load.stop_all(*workers)
    found = oracle.check(ledger)
    assert len(stream.results) <= found.sets <= len(stream.results) + stream.failures
    assert all(result.successful() for result in stream.results)
    report(
        f"{SUPERVISORS * PROCESSES} processes lost {len(theirs)} connections to {size} others for "
        f"{SECONDS:.0f} s; work goes on {resumed:.1f} s after these have gone, and is done "
        f"{took:.1f} s after the last set; {found.sets:,} sets of {MEMBERS}, 0 lost, 0 doubled, "
        f"{found.again} executed again, no process ended"
    )
