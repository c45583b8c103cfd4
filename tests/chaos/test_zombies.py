"""Workers that stop for longer than their lease, as a paused virtual machine does, and go on."""

from __future__ import annotations

import os
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Final

import pytest
from django.db import connection, connections
from django.db.models import Sum

from django_tasksets import AsyncResult
from django_tasksets.models import SubtaskRecord, WorkerRecord
from django_tasksets.statuses import SubtaskStatus
from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.tasks import square_when_told
from tests.workers.harness import Ledger, Start, Worker, row, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS: Final = scale.size(4, 200)
# On SQLite whoever is stopped at the wrong moment stops everybody, until it goes on.
PAIRS: Final = scale.size(2, 4 if connection.vendor == "sqlite" else 8)
"""So many at a time, each with a queue of its own."""
SETTINGS: Final = {"LEASE": 3}


class Pair:
    """Two workers: the one that has a subtask is stopped, and the other one gets it."""

    def __init__(self, start: Start, ledger: Ledger, number: int) -> None:
        self._ledger = ledger
        self._queue = f"pair-{number}"
        arguments = ("--processes", "1", "--threads", "4", "--queues", self._queue)
        self.workers = [start(*arguments, settings=SETTINGS) for _ in range(2)]
        self._read = dict.fromkeys(self.workers, 0)
        self.refused = 0
        """Rounds in which the subtask's late result was presented."""

    def run(self, rounds: int) -> None:
        try:
            for number in range(rounds):
                self._round(f"{self._queue}-{number}")
        finally:
            connections.close_all()

    def _round(self, name: str) -> None:
        for worker in self.workers:
            worker.wait_for_processes()
        call = square_when_told.subtask((7, name))
        result = load.apply([call, *load.squares(2, 0.0)], queue=self._queue)
        held: AsyncResult[int] = result[0]
        frozen, pid, everybody, claims = self._freeze_holder(held)
        # Of this claim nothing may come any more.
        wait_until(lambda: row(held).claims > claims, "another one to have it")
        self._ledger.tell(name)
        wait_until(lambda: result.callbacks["on_finish"].ready(), "the end of the set")
        before = row(held)
        # First those who execute, before anybody can tell them that they are dead. They say what
        # they have to say, or find out themselves that nobody has confirmed them for too long.
        frozen.signal(signal.SIGCONT, pid)
        late = f"subtask late id={held.id} claims={claims} "
        wait_until(lambda: late in frozen.log or "worker lost id=" in self._news(frozen), "a word")
        self.refused += late in frozen.log
        send(signal.SIGCONT, everybody)

        wait_until(lambda: pid not in frozen.children(), "another one in its place")
        after = row(held)
        assert (after.claims, after.worker_id) == (before.claims, before.worker_id)
        assert (after.finished_at, after.crashes) == (before.finished_at, 0)
        self._read[frozen] = len(frozen.log)

    def _news(self, worker: Worker) -> str:
        """What it has logged in this round."""
        return worker.log[self._read[worker] :]

    def _freeze_holder(self, held: AsyncResult[int]) -> tuple[Worker, int, list[int], int]:
        """Stop the one that executes it: all of it, as when its machine is paused, so that nobody
        is left who could speak for it. The worker, its process, all of them, and the claim."""
        while True:
            wait_until(lambda: held.id in self._begun(), "it to be begun")
            record, frozen, pid = wait_until(lambda: self._holder(held), "somebody to have it")
            everybody = [frozen.pid, *frozen.children()]
            send(signal.SIGSTOP, everybody)
            if can_be_written() and row(held).claims == record.claims:
                return frozen, pid, everybody, record.claims
            send(signal.SIGCONT, everybody)

    def _begun(self) -> set[str]:
        return {words[-1] for words in self._ledger.lines("begin")}

    def _holder(self, held: AsyncResult[int]) -> tuple[SubtaskRecord, Worker, int] | None:
        """The row, and who executes it: the worker and its process, unless it has just ended by
        itself, because the machine is too busy for its lease."""
        record = row(held)
        if record.status != SubtaskStatus.RUNNING or record.worker_id is None:
            return None
        pid = WorkerRecord.objects.get(id=record.worker_id).pid
        alive = [worker for worker in self.workers if pid in worker.children()]
        return (record, alive[0], pid) if alive else None


def send(number: int, pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # It may have ended meanwhile.
            os.kill(pid, number)


def can_be_written() -> bool:
    """Whether nobody who is stopped has SQLite's one write lock: then all others are, too."""
    if connection.vendor != "sqlite":
        return True
    probe = sqlite3.connect(connection.settings_dict["NAME"], timeout=2, isolation_level=None)
    with closing(probe):
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True


@pytest.mark.experiment("A worker stopped for longer than its lease, and continued")
@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_what_the_dead_say_is_refused(start: Start, ledger: Ledger, report: Report) -> None:
    pairs = [Pair(start, ledger, number) for number in range(PAIRS)]
    with ThreadPoolExecutor(PAIRS) as pool:
        list(pool.map(lambda pair: pair.run(ROUNDS // PAIRS), pairs))
    workers: list[Worker] = [worker for pair in pairs for worker in pair.workers]
    logged = sum(worker.log.count("subtask late") for worker in workers)
    counted = WorkerRecord.objects.aggregate(sum=Sum("late_results"))["sum"]
    refused = sum(pair.refused for pair in pairs)
    # What else they held may have been late, too; and who is lost may end before it logs it.
    assert counted >= logged >= refused
    load.stop_all(*workers)
    found = oracle.check(ledger)
    assert (found.sets, found.callbacks) == (ROUNDS, 2 * ROUNDS)
    report(
        f"{ROUNDS} times: {refused} came with a late result, {ROUNDS - refused} knew by themselves;"
        f" {counted} late results refused, counted and logged; 0 lost, 0 doubled"
    )
