"""Networks that break without a word: nothing is refused, nothing is closed, nothing arrives."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Final

import pytest

from django_tasksets.models import SubtaskRecord, WorkerRecord
from django_tasksets.statuses import SubtaskStatus
from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.workers.harness import Ledger, Start, Worker, wait_until
from tests.workers.proxy import SwallowingForwarder, place_of_the_server

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS: Final = scale.size(1, 6)
LEASE: Final = scale.size(3, 6)
BROKEN: Final = 3 * LEASE
"""For how long the network is, in seconds."""
ENDED: Final = 1.5 * LEASE + 3
"""How soon the processes that are cut off are to end what they execute, and others to have it."""
BACK: Final = 15.0
"""How soon those behind the network are to be at work again once it is whole."""
SETTINGS: Final = {"LEASE": LEASE, "SWEEP_INTERVAL": 5}
MEMBERS: Final = 20
RECORDING: Final = b"status = 'SUCCESSFUL'"


@pytest.fixture
def network() -> Iterator[SwallowingForwarder]:
    network = SwallowingForwarder(*place_of_the_server(), RECORDING)
    network.begin()
    yield network
    network.end()


class Round:
    """The network breaks, and is whole again; how long everything took, in seconds."""

    def __init__(self, worker: Worker, network: SwallowingForwarder, *, reset: bool) -> None:
        self._worker, self._network = worker, network
        pids = worker.wait_for_processes(2)
        known = WorkerRecord.objects.filter(lost_at=None, pid__in=pids)
        self._ids = set(known.values_list("id", flat=True))
        # In a transaction that has recorded results, and holds locks until the server ends it.
        network.is_armed = True
        wait_until(lambda: not network.is_whole, "a commit")
        self._began = time.monotonic()
        held = SubtaskRecord.objects.filter(status=SubtaskStatus.RUNNING, worker_id__in=self._ids)
        self.held = held.count()
        assert self.held > 0
        wait_until(lambda: not pids & worker.children(), "the end of what is cut off", ENDED)
        self.ended = self._elapsed()
        wait_until(lambda: not held.exists(), "others to have its work", ENDED)
        self.moved = self._elapsed()
        time.sleep(max(0.0, BROKEN - self._elapsed()))
        self.back = self._heal(reset=reset)

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _heal(self, *, reset: bool) -> float:
        if reset:
            self._network.cut()
        self._network.heal()
        began = time.monotonic()
        wait_until(lambda: len(self._at_work()) == 2, "both processes to be at work", BACK)
        return time.monotonic() - began

    def _at_work(self) -> set[uuid.UUID | None]:
        pids = self._worker.children()
        known = WorkerRecord.objects.filter(lost_at=None, pid__in=pids).exclude(id__in=self._ids)
        done = SubtaskRecord.objects.filter(status=SubtaskStatus.SUCCESSFUL)
        done = done.filter(worker_id__in=known.values("id"))
        return set(done.values_list("worker_id", flat=True))


@pytest.mark.experiment(
    "Everything between a worker and the server disappears for three leases, in mid-transaction",
    on=("postgresql", "mysql"),
)
@pytest.mark.timeout(180 + ROUNDS * (BROKEN + 30))
def test_who_is_cut_off_stops_and_comes_back(
    start: Start, ledger: Ledger, network: SwallowingForwarder, report: Report
) -> None:
    near = start("--processes", "2", "-v0", settings=SETTINGS)
    far = start("--processes", "2", "-v0", settings=SETTINGS, **network.environment)
    for worker in (near, far):
        worker.wait_for_processes(2)
    with load.Stream(MEMBERS, longest=0.1, pause=0.1) as stream:
        rounds = [Round(far, network, reset=bool(number % 2)) for number in range(ROUNDS)]
    load.wait_for_the_end(60)

    load.stop_all(near, far)
    found = oracle.check(ledger)
    assert all(result.successful() for result in stream.results)
    assert found.sets == len(stream.results)
    report(
        f"{ROUNDS} times {BROKEN} s, with a lease of {LEASE} s; the processes that were cut off "
        f"ended after at most {max(one.ended for one in rounds):.1f} s, their "
        f"{sum(one.held for one in rounds)} subtasks were others' after "
        f"{max(one.moved for one in rounds):.1f} s, and they were back "
        f"{max(one.back for one in rounds):.1f} s after the network; {found.sets:,} sets of "
        f"{MEMBERS}, 0 lost, 0 doubled, {found.again} executed again"
    )
