"""Everything at once, for a while: kills, stops, restarts, connections cut, the server crashing."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import pytest
from django.db import connection

from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.server import given
from tests.workers.harness import Ledger, Start, Worker, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS: Final = scale.size(10.0, 300.0)
SUPERVISORS: Final = 3
MEMBERS: Final = 10
LEASE: Final = 3
SETTINGS: Final = {"LEASE": LEASE, "SWEEP_INTERVAL": 5, "MAX_CRASHES": 1000}
BROKEN_OFF: Final = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mysql": "SELECT id FROM information_schema.processlist"
    " WHERE db = database() AND id <> connection_id()",
}


class Mischief:
    """One thing after another, chosen by chance; each leaves as many workers as there were."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._random = scale.generator("soak")
        self._server = given()
        self.done: Counter[str] = Counter()
        self._continuing: list[threading.Timer] = []
        self.workers = [self._new() for _ in range(SUPERVISORS)]
        self._deeds: list[Callable[[], None]] = [
            self._kill_a_process,
            self._kill_a_process,
            self._kill_a_supervisor,
            self._stop_a_worker,
            self._replace_a_worker,
        ]
        if self._server is not None:
            self._deeds += [self._cut_connections, self._crash_the_server]

    def _new(self) -> Worker:
        return self._start("--processes", "2", "--grace", "2", "-v0", settings=SETTINGS)

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(self._random.uniform(0.3, 2))
            deed = self._random.choice(self._deeds)
            deed()
            self.done[deed.__name__.strip("_").replace("_", " ")] += 1

    def end(self) -> None:
        for timer in self._continuing:
            timer.join()
        wait_until(lambda: all(worker.children() for worker in self.workers), "all to be there")
        load.stop_all(*self.workers)

    def _kill_a_process(self) -> None:
        children = sorted(self._random.choice(self.workers).children())
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._random.choice(children), signal.SIGKILL)

    def _kill_a_supervisor(self) -> None:
        place = self._random.randrange(SUPERVISORS)
        # One that is stopped and whose children are would leave them so.
        self._continue(self.workers[place])
        self.workers[place].signal(signal.SIGKILL)
        self.workers[place].process.wait()
        self.workers[place] = self._new()

    def _stop_a_worker(self) -> None:
        worker = self._random.choice(self.workers)
        for pid in (worker.pid, *worker.children()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        lasting = self._random.uniform(0.5, 2) * LEASE
        timer = threading.Timer(lasting, self._continue, [worker])
        timer.start()
        self._continuing.append(timer)

    def _continue(self, worker: Worker) -> None:
        for pid in worker.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _replace_a_worker(self) -> None:
        place = self._random.randrange(SUPERVISORS)
        worker = self.workers[place]
        self._continue(worker)
        wait_until(worker.children, "its first child")
        assert worker.stop() == 0
        self.workers[place] = self._new()

    def _cut_connections(self) -> None:
        load.patiently(self._cut)

    def _cut(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute(BROKEN_OFF[connection.vendor])
            rows = cursor.fetchall()
            if connection.vendor == "mysql":
                for (key,) in rows:
                    with contextlib.suppress(*load.AWAY):  # It has just ended.
                        cursor.execute(f"KILL CONNECTION {key}")
        return True

    def _crash_the_server(self) -> None:
        assert self._server is not None
        self._random.choice([self._server.crash, self._server.stop])()
        time.sleep(self._random.uniform(0, 2))
        self._server.start()


@pytest.mark.experiment("All of this at once, by chance")
@pytest.mark.timeout(300 + 2 * SECONDS)
def test_everything_at_once(start: Start, ledger: Ledger, report: Report) -> None:
    mischief = Mischief(start)
    with load.Stream(MEMBERS, longest=0.02, pause=0.05) as stream:
        mischief.run(SECONDS)
    took = load.wait_for_the_end(120)
    mischief.end()

    found = oracle.check(ledger)
    assert len(stream.results) <= found.sets <= len(stream.results) + stream.failures
    assert all(result.successful() for result in stream.results)
    assert found.callbacks == 2 * found.sets
    deeds = ", ".join(f"{deed} {count}x" for deed, count in sorted(mischief.done.items()))
    report(
        f"{SECONDS:.0f} s: {deeds}; {found.sets:,} sets of {MEMBERS}, done {took:.0f} s after the "
        f"last, 0 lost, 0 doubled, {found.again} executed again"
    )
