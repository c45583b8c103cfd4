"""Workers that are replaced one after the other while there is work, as a deployment does it."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Final

import pytest
from django.db.models import Sum

from django_tasksets.models import SubtaskRecord, WorkerRecord
from django_tasksets.statuses import SubtaskStatus
from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.machine import stalled
from tests.chaos.tasks import asquare, square
from tests.workers.harness import Ledger, Start, Worker, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

RESTARTS: Final = scale.size(6, 100)
SUPERVISORS: Final = 3
GRACE: Final = 1.5
# Most of them take longer than the grace period, and are given back.
LONGEST: Final = 4.0
# There is always so much to do.
READY: Final = 200
SETS_AT_ONCE: Final = 10
WAYS: Final = ("TERM", "TERM twice", "TERM to its group", "QUIT", "TERM to each of its processes")


@dataclass
class Roll:
    """Workers, one of which is ended and replaced at a time."""

    start: Start
    workers: list[Worker] = field(default_factory=list)
    ended: list[Worker] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    """How long the ends took beyond the grace period, of those that had one."""

    def new(self) -> Worker:
        return self.start("--processes", "1", "--threads", "4", "--grace", str(GRACE))

    def replace(self, place: int, way: str) -> None:
        """End a worker that has begun something, in that way."""
        worker = self.workers[place]
        (pid,) = worker.wait_for_processes()
        key = WorkerRecord.objects.get(pid=pid).id
        holds = SubtaskRecord.objects.filter(worker_id=key, status=SubtaskStatus.RUNNING)
        wait_until(holds.exists, f"{pid} to have work")
        self._end(worker, way)
        assert not holds.exists(), "something was left to the lease"
        assert not WorkerRecord.objects.filter(id=key).exists(), (way, worker.log[-1000:])
        self.ended.append(worker)
        self.workers[place] = self.new()

    def _end(self, worker: Worker, way: str) -> None:
        grace = GRACE
        before, began = stalled(), time.monotonic()
        if way == "QUIT":
            worker.signal(signal.SIGQUIT)
        elif way == "TERM to its group":
            os.killpg(worker.pid, signal.SIGTERM)
        elif way == "TERM to each of its processes":
            for pid in worker.family():
                with contextlib.suppress(ProcessLookupError):
                    worker.signal(signal.SIGTERM, pid)
        else:
            worker.signal(signal.SIGTERM)
        if way == "TERM twice":
            wait_until(lambda: "worker stopping" in worker.log, "the first to be heard")
            worker.signal(signal.SIGTERM)
        if way in ("QUIT", "TERM twice"):
            grace = 0.0
        assert worker.wait() == 0, way
        beyond = time.monotonic() - began - grace
        assert beyond < 1 + stalled() - before, way
        self.took.append(max(0.0, beyond))
        assert not worker.family(), way


def feed(longest: float = LONGEST) -> int:
    """See to it that there is work; how many sets that took."""
    if SubtaskRecord.objects.ready().count() >= READY:
        return 0
    quick = [square.subtask((number, 0.05)) for number in range(17)]
    awaited = [asquare.subtask((17, 0.05)), asquare.subtask((18, longest))]
    for _ in range(SETS_AT_ONCE):
        load.apply([*quick, *awaited, square.subtask((19, longest))])
    return SETS_AT_ONCE


@pytest.mark.experiment("Rolling restarts under load: TERM, TERM twice, QUIT, TERM to all")
@pytest.mark.timeout(300 + 20 * RESTARTS)
def test_rolling_restarts_lose_and_blame_nothing(
    start: Start, ledger: Ledger, report: Report
) -> None:
    ways = list(islice(cycle(WAYS), RESTARTS))
    scale.generator("rolling").shuffle(ways)
    roll = Roll(start)
    roll.workers = [roll.new() for _ in range(SUPERVISORS)]
    sets = 0
    for number, way in enumerate(ways):
        sets += feed()
        roll.replace(number % SUPERVISORS, way)
    load.wait_for_the_end(180 + RESTARTS)
    load.stop_all(*roll.workers)

    found = oracle.check(ledger)
    assert (found.sets, found.callbacks) == (sets, 2 * sets)
    check_nobody_was_blamed(roll)
    claims = SubtaskRecord.objects.aggregate(Sum("claims"))["claims__sum"]
    given_back = claims - SubtaskRecord.objects.filter(claims__gt=0).count()
    assert found.again > 0, "nothing took longer than the grace period"
    report(
        f"{RESTARTS} restarts of {SUPERVISORS} workers; ended {statistics.median(roll.took):.1f} s "
        f"after the grace period, at most {max(roll.took):.1f} s; {sets} sets of 20, 0 failed, "
        f"0 lost; {given_back} given back, {found.again} of them had begun"
    )


def check_nobody_was_blamed(roll: Roll) -> None:
    """An execution that was broken off is no attempt, no failure, no crash, and nothing to log."""
    released = SubtaskRecord.objects.filter(claims__gt=0)
    blamed = released.exclude(status=SubtaskStatus.SUCCESSFUL, attempts=1, retries=0, crashes=0)
    assert list(blamed.values()) == []
    for worker in [*roll.ended, *roll.workers]:
        assert [line for line in worker.log.splitlines() if " ERROR " in line] == []
