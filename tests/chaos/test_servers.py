"""Servers that crash, stop and stay away, under load."""

from __future__ import annotations

import time
from typing import Final

import pytest

from django_tasksets.models import SubtaskRecord
from django_tasksets.statuses import SubtaskStatus
from django_tasksets.store import get_store
from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.server import ThrowAwayServer
from tests.workers.harness import Ledger, Start, Worker, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

RESTARTS: Final = scale.size(2, 15)
EVERY: Final = scale.size(1.5, 20.0)
"""How long a server is left alone, in seconds."""
OUTAGE: Final = scale.size(3.0, 60.0)
RESUMED: Final = 10.0
"""How soon all processes are to be at work again, in seconds."""
SUPERVISORS: Final = 2
PROCESSES: Final = 2
MEMBERS: Final = 20


def pids_of(workers: list[Worker]) -> list[set[int]]:
    return [{worker.pid} | worker.children() for worker in workers]


def resume(server: ThrowAwayServer) -> float:
    """Start it; how long it takes from its first answer until each process has claimed something
    and brought it to its end, in seconds."""
    server.start()
    began = time.monotonic()
    moment = load.patiently(get_store().now)
    rows = SubtaskRecord.objects.filter(status=SubtaskStatus.SUCCESSFUL, claimed_at__gt=moment)
    at_work = rows.order_by().values("worker_id").distinct()
    count = SUPERVISORS * PROCESSES
    wait_until(lambda: load.patiently(at_work.count) >= count, "all to be at work", RESUMED)
    return time.monotonic() - began


@pytest.mark.experiment(
    "The server crashes or stops, again and again, and then stays away for a while",
    on=("postgresql", "mysql"),
)
@pytest.mark.timeout(120 + 3 * RESTARTS * EVERY + OUTAGE)
def test_restarts_lose_nothing_and_end_no_worker(
    start: Start, ledger: Ledger, server: ThrowAwayServer, report: Report
) -> None:
    workers = [start("--processes", f"{PROCESSES}", "-v0") for _ in range(SUPERVISORS)]
    for worker in workers:
        worker.wait_for_processes(PROCESSES)
    began = pids_of(workers)
    pauses = []
    # So much that all of them have to work.
    with load.Stream(MEMBERS, longest=0.2, pause=0.12) as stream:
        for number in range(RESTARTS):
            time.sleep(EVERY)
            (server.stop if number % 2 else server.crash)()
            pauses.append(resume(server))
        assert pids_of(workers) == began, "a process has ended"
        server.stop()
        time.sleep(OUTAGE)
        pause = resume(server)
    took = load.wait_for_the_end(120)

    assert all(worker.process.poll() is None for worker in workers), "a supervisor has ended"
    gone = [worker.log.count("could not confirm that it is alive") for worker in workers]
    if OUTAGE < 10:  # Far less than what makes a process believe that it is taken for dead.
        assert pids_of(workers) == began, "a process has ended"
    load.stop_all(*workers)
    found = oracle.check(ledger)
    assert len(stream.results) <= found.sets <= len(stream.results) + stream.failures
    assert all(result.successful() for result in stream.results)
    assert found.callbacks == 2 * found.sets
    report(
        f"{RESTARTS} restarts, all processes at work after at most {max(pauses):.1f} s; after an "
        f"outage of {OUTAGE:.0f} s after {pause:.1f} s; no supervisor ended, and {sum(gone)} "
        f"processes did, in the outage, because of the lease; {found.sets:,} sets of {MEMBERS}, "
        f"done {took:.0f} s after the last, 0 lost, 0 doubled, {found.again} executed again"
    )
