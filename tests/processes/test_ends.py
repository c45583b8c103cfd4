"""How workers end: when they are asked to, and when they are killed. Nothing is lost by it."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
from django.db.models.functions import Now

from django_tasksets import TaskSet
from django_tasksets.models import SubtaskRecord, TaskSetRecord, WorkerRecord
from tests.tasks import echo, noop
from tests.workers.harness import Ledger, Start, row, wait_until
from tests.workers.tasks import ahold, hold, write

pytestmark = pytest.mark.django_db(transaction=True)

# Short enough to wait for, long enough for a machine that is busy.
LEASE = {"LEASE": 6}


def is_gone(pid: int) -> bool:
    """Whether the process has ended; nobody may have asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def assert_untouched(*ids: str) -> None:
    """They are as they were before anybody claimed them, but for the number of claims."""
    for record in SubtaskRecord.objects.filter(id__in=ids):
        assert (record.status, record.attempts, record.crashes) == ("READY", 0, 0)
        assert (record.worker_id, record.errors, record.started_at) == (None, "", None)


# Asked to


def test_what_ends_within_the_grace_period_counts(start: Start, ledger: Ledger) -> None:
    ending, staying, awaited = hold.delay("ending"), hold.delay("staying"), ahold.delay("awaited")
    worker = start("--processes", "1", "--threads", "2", "--grace", "3")
    for name in ("ending", "staying", "awaited"):
        ledger.wait_for("begin", name)
    unstarted = [write.delay(str(number)) for number in range(10)]

    worker.signal(signal.SIGTERM)
    wait_until(lambda: "process ending" in worker.log, "the end to begin")
    ledger.tell("ending")

    assert worker.wait() == 0
    assert (ending.status, ending.get()) == ("SUCCESSFUL", "ending")
    assert_untouched(staying.id, awaited.id, *(one.id for one in unstarted))
    assert not ledger.lines("write")
    assert ledger.lines("cancelled") == [["cancelled", "awaited"]]
    assert not WorkerRecord.objects.exists()

    ledger.tell("staying", "awaited")
    assert start("--burst").wait() == 0
    assert staying.successful()
    assert awaited.successful()
    assert all(one.successful() for one in unstarted)


def test_claimed_subtasks_that_have_not_begun_go_back_at_once(start: Start, ledger: Ledger) -> None:
    TaskSet([noop.subtask() for _ in range(500)]).apply_async()
    worker = start("--processes", "1", "--threads", "1")
    wait_until(lambda: not SubtaskRecord.objects.unfinished().exists(), "a measure of speed")
    calls = [hold.subtask(("gate",)), *(write.subtask((str(i),)) for i in range(50))]
    TaskSet(calls).apply_async()
    ledger.wait_for("begin", "gate")

    worker.signal(signal.SIGTERM)
    other = start("--processes", "1", "--threads", "1")

    ledger.wait_for("write", count=50)
    ledger.tell("gate")
    assert worker.wait() == 0
    assert other.stop() == 0
    assert not SubtaskRecord.objects.exclude(status="SUCCESSFUL").exists()


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGQUIT,)])
def test_asked_twice_it_ends_at_once(
    start: Start, ledger: Ledger, signals: tuple[int, ...]
) -> None:
    results = [hold.delay("never"), ahold.delay("never")]
    worker = start("--processes", "2", "--grace", "50")
    ledger.wait_for("begin", count=2)

    for number in signals:
        worker.signal(number)
        wait_until(lambda: "worker stopping" in worker.log, "the signal to be heard")

    assert worker.wait(20) == 0
    assert_untouched(*(result.id for result in results))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_group_counts_once(start: Start, ledger: Ledger, number: int) -> None:
    """As systemd sends it, and as a terminal does at Ctrl-C and when it is closed."""
    ending = hold.delay("ending")
    worker = start("--processes", "2", "--grace", "30")
    ledger.wait_for("begin")

    os.killpg(worker.pid, number)
    wait_until(lambda: "worker stopping" in worker.log, "the end to begin")
    ledger.tell("ending")

    assert worker.wait() == 0
    assert ending.successful()
    assert "at once" not in worker.log


def test_a_process_that_is_asked_itself_is_replaced(start: Start, ledger: Ledger) -> None:
    ending = hold.delay("ending")
    worker = start("--processes", "1")
    ((_, _, pid, _),) = ledger.wait_for("begin")

    worker.signal(signal.SIGTERM, int(pid))
    ledger.tell("ending")

    wait_until(lambda: is_gone(int(pid)), "its end")
    assert ending.successful()
    assert write.delay("next").get(timeout=30) != int(pid)
    assert worker.stop() == 0


def test_stopping_while_it_starts(start: Start) -> None:
    worker = start("--processes", "2")
    wait_until(lambda: "process started" in worker.log, "the first process")

    assert worker.stop() == 0
    wait_until(lambda: not WorkerRecord.objects.exists(), "no trace")


# Killed


def test_what_a_killed_process_held_is_executed_elsewhere(start: Start, ledger: Ledger) -> None:
    TaskSet([noop.subtask() for _ in range(500)]).apply_async()
    start("--burst", "--processes", "1").wait()
    calls = [hold.subtask((str(i),)) for i in range(4)]
    calls += [write.subtask((str(i),)) for i in range(50)]
    result = TaskSet(calls, on_success=echo.subtask()).apply_async()
    worker = start("--processes", "1", "--threads", "4")
    (pid,) = {int(row[2]) for row in ledger.wait_for("begin", count=4)}
    other = start("--processes", "1", "--threads", "4")
    other.wait_for_processes()

    worker.signal(signal.SIGKILL, pid)
    ledger.tell("0", "1", "2", "3")

    callback = result.callbacks["on_success"]
    wait_until(callback.ready, "the callback")
    assert (result.status, callback.status) == ("SUCCESSFUL", "SUCCESSFUL")
    assert row(callback).claims == 1
    assert not SubtaskRecord.objects.exclude(status="SUCCESSFUL").exists()
    assert (worker.stop(), other.stop()) == (0, 0)


def test_a_process_that_is_killed_again_and_again(start: Start, ledger: Ledger) -> None:
    result = TaskSet(
        [write.subtask((str(i),)) for i in range(2000)], on_success=echo.subtask()
    ).apply_async()
    worker = start("--processes", "2", "--threads", "2")

    def has_grown(seen: int) -> bool:
        return len(ledger.lines("write")) > seen or result.ready()

    def is_buried(pid: int) -> bool:
        return pid not in worker.children()

    for _ in range(3):
        pids = worker.wait_for_processes(2)
        seen = len(ledger.lines("write"))
        wait_until(partial(has_grown, seen), "some work")
        killed = pids.pop()
        worker.signal(signal.SIGKILL, killed)
        wait_until(partial(is_buried, killed), "its burial")

    wait_until(result.callbacks["on_success"].ready, "the callback")
    record = TaskSetRecord.objects.get()
    assert (record.status, record.successful) == ("SUCCESSFUL", 2000)
    assert len({row[1] for row in ledger.lines("write")}) == 2000
    assert worker.stop() == 0


def test_a_burst_does_not_end_without_what_a_killed_process_held(
    start: Start, ledger: Ledger
) -> None:
    results = [hold.delay(str(i)) for i in range(2)]
    worker = start("--burst", "--processes", "1", "--threads", "2")
    pid = int(ledger.wait_for("begin", count=2)[0][2])
    heart = worker.heart()

    # The one who would give it back is late; the next process finds nothing to do meanwhile.
    worker.signal(signal.SIGSTOP, heart)
    worker.signal(signal.SIGKILL, pid)
    ledger.tell("0", "1")
    wait_until(lambda: worker.executing() - {pid}, "the next process")
    with pytest.raises(subprocess.TimeoutExpired):
        worker.process.wait(2)
    worker.signal(signal.SIGCONT, heart)

    assert worker.wait() == 0
    assert all(result.successful() for result in results)


def test_the_heart_is_replaced(start: Start, ledger: Ledger) -> None:
    worker = start("--processes", "1", settings=LEASE)
    worker.wait_for_processes()
    result = hold.delay("long")
    ledger.wait_for("begin", "long")
    heart = worker.heart()

    worker.signal(signal.SIGKILL, heart)

    wait_until(lambda: is_gone(heart), "its end")
    before = WorkerRecord.objects.get().heartbeat_at
    later = write.apply_async(("later",), countdown=0.5)
    wait_until(later.ready, "what was scheduled")
    wait_until(lambda: WorkerRecord.objects.get().heartbeat_at > before, "a heartbeat")
    ledger.tell("long")
    assert result.get(timeout=30) == "long"
    assert row(result).claims == 1
    assert worker.stop() == 0


def test_deaths_in_the_absence_of_a_heart_are_known_to_the_next(
    start: Start, ledger: Ledger
) -> None:
    result = hold.delay("long")
    worker = start("--processes", "1")
    pid = int(ledger.wait_for("begin", "long")[0][2])
    heart = worker.heart()

    worker.signal(signal.SIGSTOP, heart)
    worker.signal(signal.SIGKILL, pid)
    wait_until(lambda: "process gone" in worker.log, "the death to be noticed")
    worker.signal(signal.SIGKILL, heart)
    ledger.tell("long")

    assert result.get(timeout=20) == "long"
    assert worker.stop() == 0


def test_children_end_with_their_supervisor(start: Start, ledger: Ledger) -> None:
    ending, staying = hold.delay("ending"), hold.delay("staying")
    worker = start("--processes", "2", "--threads", "2", "--grace", "2")
    ledger.wait_for("begin", count=2)
    children = worker.children()
    assert len(children) == 3

    worker.signal(signal.SIGKILL)
    ledger.tell("ending")

    wait_until(lambda: all(map(is_gone, children)), "the end of all")
    assert ending.successful()
    assert_untouched(staying.id)


# Taken for dead


def test_one_that_was_declared_dead_gives_way(start: Start, ledger: Ledger) -> None:
    result = hold.delay("long")
    worker = start("--processes", "1", settings=LEASE)
    (first,) = ledger.wait_for("begin", "long")
    (pid,) = worker.wait_for_processes()
    dead = WorkerRecord.objects.get()

    WorkerRecord.objects.update(lost_at=Now())

    wait_until(lambda: is_gone(pid), "its end")
    ledger.wait_for("begin", "long", count=2)
    ledger.tell("long")
    assert result.get(timeout=30) == "long"
    assert row(result).crashes == 0
    alive = WorkerRecord.objects.get(lost_at=None)
    assert alive.id != dead.id
    assert [row[2] for row in ledger.lines("end", "long")] != [first[2]]
    assert worker.stop() == 0


def test_a_worker_that_was_frozen_finds_its_subtasks_gone(start: Start, ledger: Ledger) -> None:
    """Its processes are stopped, as when a virtual machine pauses, for longer than the lease."""
    result = hold.delay("long")
    frozen = start("--processes", "1", settings=LEASE)
    ledger.wait_for("begin", "long")
    pids = [frozen.pid, *frozen.children()]

    for pid in pids:
        frozen.signal(signal.SIGSTOP, pid)
    other = start("--processes", "1", settings=LEASE)
    ledger.wait_for("begin", "long", count=2)
    ledger.tell("long")
    wait_until(result.ready, "the other one's end")
    winner = ledger.lines("end", "long")[0][2]
    for pid in pids:
        frozen.signal(signal.SIGCONT, pid)

    wait_until(lambda: pids[0] and len(frozen.executing()) == 1, "it to be back")
    record = row(result)
    assert (record.status, record.claims, record.attempts) == ("SUCCESSFUL", 2, 1)
    assert int(winner) in other.executing()
    assert write.delay("both").get(timeout=30)
    assert (frozen.stop(), other.stop()) == (0, 0)


def test_a_process_that_is_stopped_for_the_lease_is_replaced(start: Start, ledger: Ledger) -> None:
    """It alone: its heart goes on, and would have it live for ever."""
    result = hold.delay("long")
    worker = start("--processes", "1", settings={"LEASE": 3})
    ((_, _, first, _),) = ledger.wait_for("begin", "long")

    worker.signal(signal.SIGSTOP, int(first))

    ledger.wait_for("begin", "long", count=2)
    assert is_gone(int(first))
    assert "killed, stopped" in worker.log
    ledger.tell("long")
    assert result.get(timeout=30) == "long"
    record = row(result)
    assert (record.claims, record.attempts, record.crashes) == (2, 1, 0)
    assert worker.stop() == 0


def test_a_late_result_is_dropped(start: Start, ledger: Ledger) -> None:
    result = hold.delay("long")
    worker = start("--processes", "1")
    ledger.wait_for("begin", "long")

    SubtaskRecord.objects.update(claims=7)
    ledger.tell("long")

    wait_until(lambda: "subtask late" in worker.log, "the refusal")
    assert SubtaskRecord.objects.get().status == "RUNNING"
    assert worker.stop() == 0
    assert result.status == "RUNNING"
