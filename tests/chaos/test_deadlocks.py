"""Everything that locks rows, at the same time: whether anybody waits for each other in a circle.

By the servers' own counters: what is tried again after a deadlock shows nowhere else.
"""

from __future__ import annotations

import random
import time
import uuid
from datetime import timedelta
from typing import Final, NamedTuple

import pytest
from django.db import connection

from django_tasksets import TaskSetResult, subtask
from django_tasksets.control import revoke_subtasks
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.pruning import Retention, prune
from django_tasksets.steering import retry_subtasks
from tests.chaos import load, oracle, scale
from tests.chaos.conftest import Report
from tests.chaos.tasks import square
from tests.chaos.threads import Thread
from tests.tasks import fail
from tests.workers.harness import Ledger, Start, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS: Final = scale.size(5.0, 150.0)
MEMBERS: Final = 4
# Many sets end by one batch of results, and the upkeep goes round all the time.
SETTINGS: Final = {"LEASE": 3, "SWEEP_INTERVAL": 0.5}
UNFINISHED: Final = 500
AT_ONCE: Final = 25
KEPT: Final = timedelta(seconds=2)


class Counters(NamedTuple):
    deadlocks: int
    transactions: int


def counters() -> Counters:
    """What the server has counted since its start."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT deadlocks, xact_commit + xact_rollback FROM pg_stat_database"
                " WHERE datname = current_database()"
            )
            return Counters(*cursor.fetchone())
        cursor.execute("SHOW GLOBAL STATUS")
        found = {name.lower(): value for name, value in cursor.fetchall()}
    # Statements outside of a transaction are transactions too, and not in these numbers.
    committed = int(found["com_commit"]) + int(found["com_rollback"])
    return Counters(int(found["innodb_deadlocks"]), committed)


def some_sets() -> list[uuid.UUID]:
    """In no order."""
    running = TaskSetRecord.objects.running().order_by("-id")
    found = list(running.values_list("id", flat=True)[: 4 * AT_ONCE])
    return random.sample(found, min(AT_ONCE, len(found)))


def steer_sets() -> None:
    """As in the admin: one thing to many sets."""
    kind = random.choice(("revoke", "pause", "resume", "resume", "retry", "retry"))
    for key in some_sets():
        result = TaskSetResult(key)
        if kind == "revoke":
            result.revoke()
        elif kind == "pause":
            result.pause()
        elif kind == "resume":
            result.resume()
        else:
            result.retry_failed()


def steer_subtasks() -> None:
    """One thing to many subtasks of many sets."""
    rows = SubtaskRecord.objects.members()
    if random.random() < 0.5:
        ids = list(rows.pending().order_by("-id").values_list("id", flat=True)[: 2 * AT_ONCE])
        revoke_subtasks(random.sample(ids, len(ids) // 2))
    else:
        ended = rows.filter(status__in=("FAILED", "REVOKED")).order_by("-id")
        ids = list(ended.values_list("id", flat=True)[: 4 * AT_ONCE])
        retry_subtasks(random.sample(ids, len(ids) // 2))


def feed() -> None:
    """See to it that there are many sets."""
    if SubtaskRecord.objects.unfinished().count() > UNFINISHED:
        time.sleep(0.02)
        return
    for number in range(AT_ONCE):
        calls: list[subtask] = [square.subtask((number + n, 0.002)) for n in range(MEMBERS)]
        load.apply([*calls, fail.subtask()])


def clear() -> None:
    prune(Retention(successful=KEPT, others=KEPT))


@pytest.mark.experiment(
    "Recording, upkeep, retries, revocations, pauses and pruning of many sets: deadlocks",
    on=("postgresql", "mysql"),
)
@pytest.mark.timeout(int(SECONDS) + 400)
def test_nobody_waits_in_a_circle(start: Start, ledger: Ledger, report: Report) -> None:
    before = counters()
    workers = [start("--processes", "2", "-v0", settings=SETTINGS) for _ in range(2)]
    users = [Thread(work) for work in (feed, steer_sets, steer_sets, steer_subtasks, clear)]
    for user in users:
        user.start()
    time.sleep(SECONDS)
    for user in users:
        user.end()
    for key in TaskSetRecord.objects.running().values_list("id", flat=True):
        TaskSetResult(key).resume()
    load.wait_for_the_end(180)
    load.stop_all(*workers)
    connection.close()

    wait_until(lambda: counters().transactions > before.transactions, "the server to count")
    found = oracle.check(ledger, deletions=True)
    assert found.sets > 0
    assert all(user.turns > 1 for user in users)
    assert [worker.log for worker in workers] == ["", ""]
    after = counters()
    deadlocks = after.deadlocks - before.deadlocks
    transactions = after.transactions - before.transactions
    # InnoDB locks gaps and index entries that no statement names.
    assert deadlocks <= (0 if connection.vendor == "postgresql" else transactions / 1000)
    orders = AT_ONCE * sum(user.turns for user in users[1:4])
    report(
        f"{deadlocks} deadlocks in {transactions:,} transactions; "
        f"{len({words[-1] for words in ledger.lines('begin')}):,} subtasks executed and about "
        f"{orders:,} orders in {SECONDS:.0f} s, no error"
    )
