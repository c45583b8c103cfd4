"""Sets that are steered from all sides while a worker executes them.

Whatever happens, every set ends, its counts are those of its members at every moment, and each
generation releases its callbacks once.
"""

from __future__ import annotations

import collections
import contextlib
import random
import time
import uuid
from collections.abc import Iterator

import pytest
from django.db.models import Count, Q

from django_tasksets import TaskSet, TaskSetResult, TaskSetSealed
from django_tasksets.enqueueing import seal
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.statuses import FINISHED, UNFINISHED, Role, SubtaskStatus
from tests import tasks
from tests.chaos import scale
from tests.chaos.conftest import Report
from tests.chaos.threads import LIMIT, Thread
from tests.workers.harness import Start, Worker, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = scale.size(5.0, 60.0)
SETS = 200
MEMBERS = 10
THREADS = 4


@pytest.fixture
def worker(start: Start) -> Iterator[Worker]:
    worker = start("--no-reload", "-v0")
    yield worker
    assert worker.stop() == 0


def steer(ids: list[str]) -> None:
    """One thing, chosen at random, to one set."""
    result = TaskSetResult(random.choice(ids))
    kind = random.choice(("revoke", "pause", "resume", "resume", "retry", "retry", "add"))
    if kind == "revoke":
        result.revoke()
    elif kind == "pause":
        result.pause()
    elif kind == "resume":
        result.resume()
    elif kind == "retry":
        result.retry_failed()
    else:
        with contextlib.suppress(TaskSetSealed):
            result.add(tasks.noop.subtask())


def check_counts() -> None:
    """The counts on the rows against the members themselves, in one statement: one moment."""
    member = Q(subtasks__position__gte=0)
    counted = TaskSetRecord.objects.annotate(
        n_total=Count("subtasks", filter=member),
        n_remaining=Count("subtasks", filter=member & Q(subtasks__status__in=UNFINISHED)),
        n_successful=Count("subtasks", filter=member & Q(subtasks__status="SUCCESSFUL")),
        n_failed=Count("subtasks", filter=member & Q(subtasks__status="FAILED")),
        n_revoked=Count("subtasks", filter=member & Q(subtasks__status="REVOKED")),
    )
    names = ("total", "remaining", "successful", "failed", "revoked")
    for row in counted.values("id", *names, *(f"n_{name}" for name in names)):
        assert [row[name] for name in names] == [row[f"n_{name}"] for name in names], row["id"]


def make_sets() -> tuple[list[str], list[TaskSetResult]]:
    calls = [tasks.noop.subtask() if i % 5 else tasks.fail.subtask() for i in range(MEMBERS)]

    def make() -> TaskSet:
        return TaskSet(
            calls,
            on_success=tasks.echo.subtask(),
            on_failure=tasks.describe.subtask(),
            on_finish=tasks.describe.subtask(),
        )

    sealed = [make().apply_async() for _ in range(SETS // 2)]
    opened = [make().open().__enter__() for _ in range(SETS // 2)]
    return [result.id for result in sealed + opened], opened


@pytest.mark.experiment("Revoke, pause, resume, retry and add from four threads at once")
@pytest.mark.timeout(int(SECONDS) + 3 * LIMIT)
def test_a_storm_of_steering_leaves_every_set_ended_and_counted(
    worker: Worker, report: Report
) -> None:
    ids, opened = make_sets()
    storm = [Thread(lambda: steer(ids)) for _ in range(THREADS)]
    watcher = Thread(check_counts)
    for thread in [*storm, watcher]:
        thread.start()
    time.sleep(SECONDS)
    for thread in storm:
        thread.end()

    for key in ids:
        TaskSetResult(key).resume()
    for result in opened:
        seal(uuid.UUID(result.id))
    running = TaskSetRecord.objects.running()
    wait_until(lambda: not running.exists(), "every set ends", LIMIT)
    unfinished = SubtaskRecord.objects.unfinished()
    wait_until(lambda: not unfinished.exists(), "every callback ends", LIMIT)
    watcher.end()
    check_counts()

    assert TaskSetRecord.objects.finished().count() == SETS
    check_callbacks()
    turns = sum(thread.turns for thread in storm)
    # How many depends on the machine; each thread must have had its turns.
    assert all(thread.turns > 10 for thread in storm)
    report(
        f"{turns:,} orders to {SETS} sets in {SECONDS:.0f} s, counted {watcher.turns} times "
        "meanwhile; each ended, each generation called back once"
    )


def check_callbacks() -> None:
    """Of each generation one of on_success and on_failure was executed, and on_finish was."""
    released: dict[tuple[uuid.UUID, int], list[str]] = collections.defaultdict(list)
    for row in SubtaskRecord.objects.callbacks():
        assert row.status in FINISHED
        if row.status == SubtaskStatus.SUCCESSFUL:
            assert row.taskset_id is not None
            assert row.attempts == 1
            released[row.taskset_id, row.generation].append(row.role)
    generations = dict(TaskSetRecord.objects.values_list("id", "generation"))
    for key, last in generations.items():
        for generation in range(1, last + 1):
            roles = sorted(released[key, generation])
            assert roles in ([Role.ON_FAILURE, Role.ON_FINISH], [Role.ON_FINISH, Role.ON_SUCCESS])
