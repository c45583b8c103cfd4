"""Workers that are killed at random, all the time."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Final

import pytest

from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.workers.harness import Ledger, Start, Worker, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SETS: Final = scale.size(150, 2000)
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
        self._random = scale.generator("kills")
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


@pytest.mark.experiment("`kill -9` of a random worker, heart or supervisor every 0.5 to 2 s")
@pytest.mark.timeout(300 + SETS)
def test_killing_workers_loses_nothing_and_doubles_nothing(
    start: Start, ledger: Ledger, report: Report
) -> None:
    results = load.apply_many(SETS, MEMBERS)
    killer = Killer(start)
    killer.start()
    took = load.wait_for_the_end(240 + SETS)
    killer.end()
    wait_until(lambda: all(worker.children() for worker in killer.workers), "all to be there")
    load.stop_all(*killer.workers)

    found = oracle.check(ledger)
    assert (found.sets, found.members, found.callbacks) == (SETS, SETS * MEMBERS, 2 * SETS)
    assert all(result.successful() for result in results)
    assert killer.kills + killer.supervisors > 0
    report(
        f"{SETS:,} sets of {MEMBERS} in {took:.0f} s, {killer.kills} processes and "
        f"{killer.supervisors} supervisors killed; 0 lost, 0 doubled, "
        f"{found.again} executed again"
    )
