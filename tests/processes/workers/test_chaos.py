"""Workers that are killed at random, all the time: nothing is lost, and nothing counts twice.

TASKSETS_CHAOS_SETS says over how many sets, TASKSETS_CHAOS_SEED in which order.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from typing import Final

import pytest
from django.db import connection

from django_tasksets import TaskSet
from django_tasksets.models import SubtaskRecord
from tests.processes.workers import oracle, tasks
from tests.processes.workers.conftest import Ledger, Start, Worker, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SETS: Final = int(os.environ.get("TASKSETS_CHAOS_SETS", "150"))
SEED: Final = int(os.environ.get("TASKSETS_CHAOS_SEED") or random.randrange(10**6))
MEMBERS: Final = 10
SUPERVISORS: Final = 2
# No subtask is to blame: it may be executing whenever its process is killed.
SETTINGS: Final = {"LEASE": 3, "SWEEP_INTERVAL": 5, "MAX_CRASHES": 1000}


class Killer(threading.Thread):
    """Kills a process of a worker at random every 0.5 to 2 s: those that execute, hearts, and one
    in five times a supervisor, in whose place another is started."""

    def __init__(self, start: Start) -> None:
        super().__init__()
        self._start = start
        self._random = random.Random(SEED)
        self._stopping = threading.Event()
        self.workers = [self._new() for _ in range(SUPERVISORS)]
        self.kills = self.supervisors = 0
        self.error: BaseException | None = None

    def _new(self) -> Worker:
        return self._start("--processes", "2", "-v0", settings=SETTINGS)

    def run(self) -> None:
        try:
            while not self._stopping.wait(self._random.uniform(0.5, 2)):
                self._kill()
        except BaseException as error:  # noqa: BLE001  raised again by end()
            self.error = error

    def _kill(self) -> None:
        place = self._random.randrange(SUPERVISORS)
        worker = self.workers[place]
        children = sorted(worker.children())
        if self._random.random() < 0.2:
            worker.signal(signal.SIGKILL)
            worker.process.wait()
            self.workers[place] = self._new()
            self.supervisors += 1
        elif children:
            with contextlib.suppress(ProcessLookupError):
                worker.signal(signal.SIGKILL, self._random.choice(children))
                self.kills += 1

    def end(self) -> None:
        self._stopping.set()
        self.join()
        if self.error is not None:
            raise self.error


@pytest.mark.timeout(300 + SETS)
def test_killing_workers_loses_nothing_and_doubles_nothing(start: Start, ledger: Ledger) -> None:
    sets = {
        TaskSet(
            [tasks.square.subtask((index,)) for index in range(MEMBERS)],
            on_success=tasks.collect.subtask(),
        )
        .apply_async()
        .id: MEMBERS
        for _ in range(SETS)
    }
    killer = Killer(start)
    began = time.monotonic()
    killer.start()
    unfinished = SubtaskRecord.objects.unfinished()
    wait_until(lambda: not unfinished.exists(), f"the end of all, seed {SEED}", 240 + SETS)
    took = time.monotonic() - began
    killer.end()
    wait_until(lambda: all(worker.children() for worker in killer.workers), "all to be there")
    assert [worker.stop() for worker in killer.workers] == [0] * SUPERVISORS

    oracle.check_sets(sets, tasks.squared)
    again = oracle.check_ledger(ledger.lines("begin"), ledger.lines("end"))
    oracle.check_nothing_is_left()
    print(  # noqa: T201  to be quoted
        f"\n{connection.vendor}: {SETS} sets of {MEMBERS} in {took:.0f} s, {killer.kills} processes"
        f" and {killer.supervisors} supervisors killed, {again} executions begun again, seed {SEED}"
    )
    assert killer.kills + killer.supervisors > 0
