"""What workers do, as long as nothing goes wrong."""

from __future__ import annotations

import itertools
import os
import signal
import time
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from django_tasksets import TaskSet, TaskSetResult
from django_tasksets.models import SubtaskRecord, TaskSetRecord, WorkerRecord
from tests.tasks import add, describe, echo, fail, noop, retry_until, total
from tests.workers.harness import Ledger, Start, row, wait_until
from tests.workers.tasks import (
    Watched,
    ahold,
    asleep,
    cooperate,
    fan_out,
    flaky,
    hold,
    look_at_connection,
    nap,
    stamp,
    swallow_room,
    write,
)

if TYPE_CHECKING:
    from pytest_django.fixtures import Settings

pytestmark = pytest.mark.django_db(transaction=True)


def wait_for(result: TaskSetResult) -> TaskSetRecord:
    """Wait for the set and its callbacks."""
    unfinished = SubtaskRecord.objects.filter(taskset_id=UUID(result.id)).unfinished()
    wait_until(lambda: not unfinished.exists(), f"the end of {result.id}")
    return TaskSetRecord.objects.get(id=result.id)


# Burst


@pytest.mark.parametrize(("processes", "reload"), [("1", "--reload"), ("2", "--no-reload")])
def test_a_burst_ends_when_all_is_done(start: Start, processes: str, reload: str) -> None:
    result = TaskSet(
        [add.subtask((i, i)) for i in range(300)],
        on_success=total.subtask(),
        on_finish=describe.subtask(("done",)),
    ).apply_async()
    failing = TaskSet([fail.subtask(), noop.subtask()], on_failure=describe.subtask()).apply_async()
    linked = add.apply_async((1, 2), link=add.subtask((10,)))
    retried = retry_until.delay(2)
    fan_out.delay(["a", "b", "c"])

    assert start("--burst", "--processes", processes, reload).wait() == 0

    assert TaskSetRecord.objects.get(id=result.id).status == "SUCCESSFUL"
    assert result.callbacks["on_success"].get() == sum(2 * i for i in range(300))
    assert result.callbacks["on_finish"].get() == [result.id, "SUCCESSFUL", "done"]
    assert failing.callbacks["on_failure"].get() == [failing.id, "FAILED", ""]
    assert (linked.get(), retried.get()) == (3, 2)
    assert SubtaskRecord.objects.get(task_name=add.name, taskset=None, args="[3,10]").return_value
    assert not SubtaskRecord.objects.unfinished().exists()
    assert not WorkerRecord.objects.exists()


def test_a_callback_that_asks_no_database_needs_no_connection(start: Start) -> None:
    """What it is given is read apart."""
    calls = [add.subtask((i, i)) for i in range(3)]
    result = TaskSet(calls, on_success=look_at_connection.subtask()).apply_async()
    assert start("--burst", "--processes", "1").wait() == 0
    assert result.callbacks["on_success"].get() is False


def test_a_burst_ends_with_what_its_last_signal_set_off(start: Start) -> None:
    """The rest is revoked off the recorder's thread, and releases a callback."""
    result = TaskSet(
        [fail.subtask(), *(noop.subtask(options={"countdown": 3600}) for _ in range(20))],
        fail_fast=True,
        on_failure=describe.subtask(),
    ).apply_async()

    assert start("--burst", "--processes", "1").wait() == 0

    assert result.callbacks["on_failure"].get() == [result.id, "FAILED", ""]


def test_a_burst_leaves_what_is_not_due(start: Start) -> None:
    later = noop.apply_async(countdown=3600)

    assert start("--burst", "--processes", "1").wait() == 0

    assert later.status == "SCHEDULED"


# Sharing


def test_workers_share(start: Start) -> None:
    result = TaskSet(
        [write.subtask((str(i),)) for i in range(200)], on_success=echo.subtask()
    ).apply_async()
    workers = [start("--processes", "1", "--threads", "2") for _ in range(3)]

    record = wait_for(result)

    assert (record.status, record.successful) == ("SUCCESSFUL", 200)
    assert SubtaskRecord.objects.filter(taskset_id=UUID(result.id), attempts=1).count() == 201
    for worker in workers:
        worker.wait_for_processes()  # One that has not got so far has no handler of signals yet.
    assert [worker.stop() for worker in workers] == [0, 0, 0]


def test_each_is_executed_once(start: Start, ledger: Ledger) -> None:
    result = TaskSet([write.subtask((str(i),)) for i in range(200)]).apply_async()
    start("--processes", "2")

    wait_for(result)

    assert sorted(int(row[1]) for row in ledger.lines("write")) == list(range(200))


def test_long_tasks_do_not_keep_others_waiting(start: Start, ledger: Ledger) -> None:
    """What was claimed ahead of its execution is given back when something long comes first."""
    TaskSet([noop.subtask() for _ in range(500)]).apply_async()
    first = start("--processes", "1", "--threads", "1")
    wait_until(lambda: not SubtaskRecord.objects.unfinished().exists(), "a measure of speed")
    calls = [hold.subtask(("gate",)), *(write.subtask((str(i),)) for i in range(50))]
    TaskSet(calls).apply_async()
    ledger.wait_for("begin", "gate")

    start("--processes", "1", "--threads", "1")

    ledger.wait_for("write", count=50)
    ledger.tell("gate")
    assert first.stop() == 0


def test_threads_do_not_idle_between_long_tasks(start: Start) -> None:
    result = TaskSet([nap.subtask((0.3,)) for _ in range(10)]).apply_async()
    start("--processes", "1", "--threads", "1")

    record = wait_for(result)

    assert record.started_at is not None
    assert record.finished_at is not None
    assert (record.finished_at - record.started_at).total_seconds() < 4.2


# Order


def test_higher_priorities_come_first_and_queues_are_kept_apart(
    start: Start, ledger: Ledger
) -> None:
    write.apply_async(("low",), queue="a", priority=-5)
    write.apply_async(("high",), queue="b", priority=5)
    write.apply_async(("middle",), queue="a")
    elsewhere = write.apply_async(("elsewhere",), queue="c")

    assert start("--burst", "--processes", "1", "--threads", "1", "--queues", "a,b").wait() == 0

    assert [row[1] for row in ledger.lines("write")] == ["high", "middle", "low"]
    assert elsewhere.status == "READY"
    assert start("--burst", "--processes", "1", "--queues", "*").wait() == 0
    assert elsewhere.successful()


# Time


def test_a_countdown_and_an_eta_are_on_time(start: Start) -> None:
    start("--processes", "1").wait_for_processes()
    now = time.time()
    soon = stamp.apply_async(countdown=1.5)
    later = stamp.apply_async(eta=timezone.now() + timedelta(seconds=2.5))

    assert soon.get(timeout=30) - now == pytest.approx(1.5, abs=1)
    assert later.get(timeout=30) - now == pytest.approx(2.5, abs=1)
    assert soon.get() >= now + 1.5


def test_retries_back_off(start: Start, ledger: Ledger) -> None:
    result = flaky.delay(3)
    start("--processes", "1")

    assert result.get(timeout=30) == 3

    times = [float(row[1]) for row in ledger.lines("flaky")]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True):
        assert least <= pause < least + 1.5
    record = row(result)
    assert (record.attempts, record.retries, record.claims) == (4, 3, 4)
    assert [error["message"] for error in record.get_errors()] == ["0", "1", "2"]


def test_what_has_expired_is_revoked(start: Start, ledger: Ledger) -> None:
    expired = write.apply_async(("late",), expires=timezone.now() + timedelta(seconds=0.01))
    wait_until(lambda: timezone.now() > (row(expired).expires_at or timezone.now()), "the expiry")
    in_time = write.apply_async(("soon",), expires=3600)

    assert start("--burst", "--processes", "1").wait() == 0

    assert row(expired).reason == "expired"
    assert (expired.status, in_time.status) == ("REVOKED", "SUCCESSFUL")
    assert ledger.lines("write") == [["write", "soon"]]


def test_an_idle_worker_begins_at_once(start: Start) -> None:
    start("--processes", "1").wait_for_processes()
    stamp.delay().get(timeout=30)

    delays = []
    for _ in range(10):
        began = time.time()
        delays.append(stamp.delay().get(timeout=30) - began)

    # Where nothing tells of a commit, the worker looks twice a second.
    limit = 1.0 if connection.vendor == "mysql" else 0.25
    assert sorted(delays)[5] < limit


@pytest.mark.usefixtures("requires_redis")
def test_redis_wakes_an_idle_worker(start: Start, settings: Settings) -> None:
    over_redis = {"WAKEUPS": "redis", "REDIS": "redis"}
    settings.TASKSETS = settings.TASKSETS | over_redis
    start("--processes", "1", settings=over_redis).wait_for_processes()
    stamp.delay().get(timeout=30)

    delays = []
    for _ in range(10):
        began = time.time()
        delays.append(stamp.delay().get(timeout=30) - began)

    assert sorted(delays)[5] < 0.25


def test_polling_alone_is_enough(start: Start) -> None:
    start("--processes", "1", "--interval", "0.2", settings={"WAKEUPS": "off"}).wait_for_processes()

    began = time.time()
    assert stamp.delay().get(timeout=30) - began < 2


# Async


def test_async_tasks_are_awaited_together(start: Start) -> None:
    result = TaskSet([asleep.subtask((1.0,)) for _ in range(200)]).apply_async()
    start("--processes", "1")

    record = wait_for(result)

    assert record.successful == 200
    assert record.started_at is not None
    assert record.finished_at is not None
    assert (record.finished_at - record.started_at).total_seconds() < 3.5


def test_no_more_async_tasks_are_held_than_can_be_awaited(start: Start, ledger: Ledger) -> None:
    TaskSet([ahold.subtask(("gate",)) for _ in range(60)]).apply_async()
    start("--processes", "1", "--threads", "2", "--async-concurrency", "10")

    ledger.wait_for("begin", "gate", count=10)

    assert len(ledger.lines("begin", "gate")) == 10
    assert SubtaskRecord.objects.filter(status="RUNNING").count() <= 20
    ledger.tell("gate")
    ledger.wait_for("end", "gate", count=60)


def test_async_tasks_go_on_while_all_threads_are_busy(start: Start, ledger: Ledger) -> None:
    TaskSet([hold.subtask((str(i),)) for i in range(10)]).apply_async()
    start("--processes", "1", "--threads", "2")
    ledger.wait_for("begin", count=2)
    result = TaskSet([asleep.subtask((0.0,)) for _ in range(5)]).apply_async()

    wait_until(result.ready, "the async ones")

    assert not ledger.lines("end")
    assert len(ledger.lines("begin")) == 2


def test_async_tasks_have_contexts_of_their_own(start: Start) -> None:
    result = TaskSet([swallow_room.subtask() for _ in range(50)]).apply_async()
    start("--burst", "--processes", "1", "--async-concurrency", "5").wait()

    assert set(result.join()) == {""}


# Revoking


def test_running_subtasks_are_revoked(start: Start, ledger: Ledger) -> None:
    polite, awaited = cooperate.delay(), ahold.delay("never")
    start("--processes", "1")
    ledger.wait_for("begin", polite.id)
    ledger.wait_for("begin", "never")

    polite.revoke()
    awaited.revoke()

    wait_until(lambda: polite.ready() and awaited.ready(), "their end")
    assert (polite.status, awaited.status) == ("REVOKED", "REVOKED")
    assert ledger.lines("cancelled") == [["cancelled", "never"]]


def test_one_that_does_not_look_is_terminated_with_its_process(
    start: Start, ledger: Ledger
) -> None:
    deaf, neighbour = hold.delay("deaf"), hold.delay("neighbour")
    worker = start("--processes", "1", "--threads", "2")
    ledger.wait_for("begin", "deaf")
    ledger.wait_for("begin", "neighbour")
    (before,) = worker.executing()

    deaf.revoke(terminate=True)

    wait_until(deaf.ready, "its end")
    assert (deaf.status, row(deaf).reason) == ("REVOKED", "terminated")
    ledger.tell("neighbour")
    assert neighbour.get(timeout=30) == "neighbour"
    assert row(neighbour).crashes == 0
    assert worker.wait_for_processes() != {before}
    assert not ledger.lines("end", "deaf")
    assert worker.stop() == 0


# Hooks and signals


def test_hooks_are_called_and_signals_sent(start: Start, ledger: Ledger) -> None:
    TaskSet([Watched().subtask((word,)) for word in ("good", "broken", "fail")]).apply_async()
    retry_until.delay(1)

    worker = start("--burst", "--processes", "1", TASKSETS_TEST_SIGNALS="1")
    assert worker.wait() == 0
    worker.fails = True  # Every receiver raises, and one hook asks to exit.

    assert sorted(ledger.lines("on_success")) == [
        ["on_success", "broken", "True"],
        ["on_success", "good", "True"],
    ]
    assert ledger.lines("on_failure") == [["on_failure", "fail"]]
    assert ledger.lines("after_return", "FAILURE")
    sent = [(row[1], *row[3:]) for row in ledger.lines("signal")]
    assert sent[0] == ("worker_started",)
    assert sent[-1] == ("worker_stopped",)
    assert sorted(sent).count(("subtask_started",)) == 5
    assert sent.count(("subtask_finished", "SUCCESSFUL")) == 3
    assert sent.count(("subtask_finished", "FAILED")) == 1
    assert sent.count(("subtask_retried",)) == 1
    assert sent.count(("taskset_finished", "FAILED")) == 1
    assert {row[2] for row in ledger.lines("signal")} == {"ordinary"}
    record = TaskSetRecord.objects.get()
    assert (record.successful, record.failed) == (2, 1)
    assert record.announced_at is not None


# Recycling


def test_a_process_is_replaced_after_its_share(start: Start) -> None:
    result = TaskSet([write.subtask((str(i),)) for i in range(60)]).apply_async()

    assert start("--burst", "--processes", "1", "--max-tasks", "10").wait() == 0

    counts: dict[int, int] = {}
    for pid in result.join():
        counts[pid] = counts.get(pid, 0) + 1
    assert list(counts.values()) == [10] * 6


def test_a_process_that_has_grown_is_replaced(start: Start) -> None:
    result = TaskSet([write.subtask((str(i),)) for i in range(10)]).apply_async()
    worker = start("--processes", "1", "--max-memory", "1M")

    wait_for(result)
    wait_until(lambda: "is replaced" in worker.log, "the next process")

    assert write.delay("again").get(timeout=30)
    assert worker.stop() == 0


def test_the_health_file_is_touched(start: Start, ledger: Ledger) -> None:
    file = ledger.directory / "health"
    worker = start("--processes", "2", "--health-file", str(file))
    worker.wait_for_processes(2)
    wait_until(file.exists, "the file")

    worker.signal(signal.SIGSTOP, worker.heart())
    os.utime(file, (0, 0))
    worker.signal(signal.SIGCONT, worker.heart())

    wait_until(lambda: file.stat().st_mtime > 0, "another touch")
    assert worker.stop() == 0
