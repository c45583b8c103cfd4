"""What users' code does to a worker, and what its surroundings do."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from django_tasksets import AsyncResult, TaskSet
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from tests import services
from tests.tasks import describe
from tests.workers import tasks
from tests.workers.harness import LIMIT, Ledger, Start, Worker, row, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def assert_nothing_is_left(worker: Worker) -> None:
    """It ends at once when it is asked to, with every process of its own."""
    if worker.process.poll() is None:
        worker.signal(signal.SIGQUIT)
        worker.wait()
    wait_until(lambda: not worker.family(), "no process to be left")


def test_nothing_that_tasks_do_ends_a_worker(start: Start) -> None:
    other = TaskSetRecord.objects.create(status="SAVED", name="before")
    key = str(other.id)
    leaves = tasks.misbehave.delay("exit")
    interrupts = tasks.misbehave.delay("interrupt")
    cancelled = tasks.give_up.delay()
    objects = tasks.give_object.delay()
    open_ = tasks.leave_transaction_open.delay()
    rolled_back = tasks.rename_atomically.delay(key, "rolled back", "fail")
    broken = tasks.fail_in_database.delay()
    soft = tasks.cooperate.apply_async(soft_time_limit=0.5)
    handled = tasks.soft.delay("clean")
    soft_async = tasks.asleep.apply_async((LIMIT,), soft_time_limit=0.5)
    deadlock = tasks.deadlock_once.delay()
    worker = start("--burst", "--processes", "1", "--threads", "2")
    assert worker.wait() == 0
    assert worker.log.count("process started") == 1

    assert "SystemExit: 3" in row(leaves).reason
    assert "KeyboardInterrupt" in row(interrupts).reason
    assert "CancelledError" in row(cancelled).reason
    assert row(objects).reason == "the result cannot be stored"
    for failed in (leaves, interrupts, cancelled, objects, rolled_back, soft, soft_async):
        assert (failed.status, row(failed).attempts) == ("FAILED", 1)
    assert "SoftTimeLimitExceeded" in row(soft).reason
    assert "SoftTimeLimitExceeded" in row(soft_async).reason
    assert handled.get() == "clean"
    assert (open_.status, broken.ready()) == ("SUCCESSFUL", True)
    assert "a transaction was left open" in worker.log
    # What was written in transactions that did not commit is not there.
    assert TaskSetRecord.objects.get(id=other.id).name == "before"
    assert deadlock.get() == "after all"
    # It may have been given back unbegun besides, while both threads were busy.
    assert row(deadlock).claims >= 2
    assert row(deadlock).attempts == 1
    assert_nothing_is_left(worker)


def test_an_atomic_task_commits_with_its_record(start: Start) -> None:
    other = TaskSetRecord.objects.create(status="SAVED", name="before")
    calls = [tasks.rename_atomically.subtask((str(other.id), "after"))]
    result = TaskSet(calls).apply_async()
    worker = start("--burst", "--processes", "1")
    assert worker.wait() == 0
    assert result.join(timeout=1) == ["after"]
    assert TaskSetRecord.objects.get(id=other.id).name == "after"
    assert_nothing_is_left(worker)


def test_a_time_limit_ends_what_does_not_end_itself(start: Start) -> None:
    sync = tasks.nap.apply_async((LIMIT,), time_limit=1)
    polite = tasks.asleep.apply_async((LIMIT,), time_limit=0.5)
    deaf = tasks.ahard.delay("deaf")
    worker = start("--processes", "1")
    wait_until(lambda: all(one.ready() for one in (sync, polite, deaf)), "the end of all")
    assert row(sync).reason == "time limit exceeded"
    assert {sync.status, polite.status, deaf.status} == {"FAILED"}
    # Their process saw to it: the supervisor does where it does not, and later.
    assert "worker process killed" not in worker.log
    assert_nothing_is_left(worker)


def test_a_hook_that_exits_leaves_the_thread_to_the_next_one(start: Start) -> None:
    first = tasks.Watched().delay("broken")
    worker = start("--processes", "1", "--threads", "1")
    wait_until(first.ready, "the first one")
    # The only thread is to call the hook before it can take this.
    second = tasks.write.delay("second")
    wait_until(second.ready, "the second one")
    assert worker.log.count("process started") == 1
    assert "executor failed, and goes on" in worker.log
    worker.fails = True


@pytest.mark.parametrize("how", ["hogged", "stopped"])
def test_a_time_limit_ends_what_keeps_its_process_from_looking(
    start: Start, ledger: Ledger, how: str
) -> None:
    """The supervisor does: nobody else in the process gets to do anything."""
    overdue: AsyncResult[Any]
    if how == "hogged":
        overdue = tasks.hog.delay()
    else:
        overdue = tasks.hold.apply_async(("stopped",), time_limit=3)
    worker = start("--processes", "1", "--threads", "2")
    (pid,) = worker.wait_for_processes()
    others = [tasks.write.delay("other") for _ in range(5)]
    if how == "stopped":
        ledger.wait_for("begin", "stopped")
        worker.signal(signal.SIGSTOP, pid)
    wait_until(overdue.ready, "its end")
    failed = row(overdue)
    assert (failed.status, failed.reason) == ("FAILED", "time limit exceeded")
    assert (failed.get_errors()[0]["exception_class"], failed.crashes) == ("TimeLimitExceeded", 0)
    wait_until(lambda: all(one.successful() for one in others), "the others")
    assert worker.wait_for_processes() != {pid}
    assert_nothing_is_left(worker)


@pytest.mark.parametrize(
    ("how", "cause"),
    # The second as if it had ended in order.
    [("segfault", "SIGSEGV"), ("exit", "exited with code 0")],
)
def test_what_kills_its_process_fails_and_takes_nothing_with_it(
    start: Start, ledger: Ledger, how: str, cause: str
) -> None:
    ledger.tell("now")
    innocent = [tasks.write.subtask(("innocent",))] * 20
    guilty = tasks.die.subtask(("now", how))
    result = TaskSet(
        [*innocent[:10], guilty, *innocent[10:]], on_finish=describe.subtask()
    ).apply_async()
    worker = start("--burst", "--processes", "1", settings={"MAX_CRASHES": 2})
    assert worker.wait() == 0
    assert result.callbacks["on_finish"].get() == [result.id, "FAILED", ""]
    progress = result.progress()
    assert (progress.successful, progress.failed) == (20, 1)
    failed = SubtaskRecord.objects.members().get(status="FAILED")
    assert cause in failed.reason
    assert failed.crashes == 2
    assert_nothing_is_left(worker)


def test_an_unknown_task_waits_for_a_worker_that_knows_it(start: Start) -> None:
    result, never = tasks.newcomer.delay(), tasks.stamp.delay()
    SubtaskRecord.objects.filter(id=never.id).update(task_name="tests.nowhere.known", deferrals=9)
    settings = {"UNKNOWN_TASK_WAIT": 5}
    ignorant = start("--processes", "1", settings=settings, **{tasks.FORGET: "1"})
    wait_until(lambda: "unknown task" in ignorant.log, "its ignorance")
    knowing = start("--processes", "1", settings=settings)
    assert result.get(timeout=LIMIT) == "welcome"
    wait_until(never.ready, "nobody to know it")
    assert (never.status, row(never).reason) == ("FAILED", "unknown task")
    assert (row(never).claims, row(never).deferrals) == (2, 10)
    assert_nothing_is_left(ignorant)
    assert_nothing_is_left(knowing)


def test_changed_code_starts_it_anew(
    start: Start, ledger: Ledger, child_environment: dict[str, str]
) -> None:
    module = ledger.directory / "watched_code.py"
    app = ledger.directory / "watched_app"
    app.mkdir()
    (app / "__init__.py").touch()
    (app / "tasks.py").write_text("import watched_code\n")
    module.write_text("")
    path = os.pathsep.join([child_environment["PYTHONPATH"], str(ledger.directory)])
    worker = start(
        "--reload", "--processes", "1", TASKSETS_TEST_APPS="watched_app", PYTHONPATH=path
    )
    first = worker.wait_for_processes()
    held = tasks.hold.delay("held")
    ledger.wait_for("begin")
    module.write_text("CHANGED = True\n")
    wait_until(lambda: "code changed" in worker.log, "it to notice")
    ledger.tell("held")
    wait_until(lambda: worker.executing() not in (set(), first), "the new one")
    assert held.status == "SUCCESSFUL"
    assert_nothing_is_left(worker)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="takes a server that can be taken away")
def test_it_waits_for_the_database_at_the_start(start: Start, ledger: Ledger) -> None:
    database = Path(str(connection.settings_dict["NAME"]))
    missing = ledger.directory / "missing"
    worker = start(
        "--processes", "1", settings={}, **{services.DATABASE_NAME: str(missing / database.name)}
    )
    wait_until(lambda: "worker waits for the database" in worker.log, "it to wait")
    assert "Traceback" not in worker.log
    missing.symlink_to(database.parent)
    assert isinstance(tasks.write.delay("there").get(timeout=LIMIT), int)
    assert "gone" not in worker.log
    assert_nothing_is_left(worker)


def test_what_tasks_start_is_theirs(start: Start, ledger: Ledger) -> None:
    """Ctrl-C at the terminal is not for their programs, and what they fork can be ended."""
    program, forked = tasks.run_program.delay(2), tasks.fork_and_end.delay()
    worker = start("--processes", "1", "--threads", "2")
    ledger.wait_for("program")
    wait_until(forked.ready, "the end of what was forked")

    os.killpg(worker.pid, signal.SIGINT)

    assert worker.wait() == 0
    assert program.successful(), worker.log
    assert program.successful(), worker.log
    assert forked.get() == -signal.SIGTERM


def test_a_copy_of_a_worker_that_a_task_has_made_ends_with_the_task(start: Start) -> None:
    copied = tasks.leave_a_copy.delay()
    worker = start("--processes", "1")
    worker.fails = True  # The copy logs how it ended.
    wait_until(copied.ready, "its end")
    assert copied.successful()
    wait_until(lambda: len(worker.family()) == 3, "the copy's end")
    assert worker.stop() == 0
    assert_nothing_is_left(worker)


def test_an_async_task_may_raise_anything(start: Start) -> None:
    result = tasks.raise_unusual.delay()
    worker = start("--burst", "--processes", "1")
    assert worker.wait() == 0
    assert "Unusual: on purpose" in row(result).reason


def test_others_are_executed_beside_a_loop_that_is_full(start: Start, ledger: Ledger) -> None:
    held = [tasks.ahold.delay(f"held-{number}") for number in range(4)]
    worker = start("--processes", "1", "--threads", "2", "--async-concurrency", "2")
    ledger.wait_for("begin", count=2)

    assert tasks.write.delay("beside").get(timeout=LIMIT)

    ledger.tell(*(f"held-{number}" for number in range(4)))
    wait_until(lambda: all(one.ready() for one in held), "their end")
    assert worker.stop() == 0


def test_a_large_process_is_replaced_while_async_tasks_come(start: Start) -> None:
    worker = start("--processes", "1", "--max-memory", "1M")

    def one_more() -> bool:
        assert tasks.asleep.delay(0.01).get(timeout=LIMIT) is None
        return worker.log.count("is replaced") > 1

    wait_until(one_more, "the next processes")
    assert worker.stop() == 0


def test_a_burst_is_over_when_nobody_executes_anything(start: Start, ledger: Ledger) -> None:
    """What a process that is idle has no more to do for may become more soon."""
    first = tasks.hold.delay("first")
    worker = start("--burst", "--processes", "2", "--threads", "1")
    ledger.wait_for("begin")
    worker.wait_for_processes(2)
    add_more = tasks.fan_out.delay(["a", "b"])
    ledger.wait_for("write", count=2)
    wait_until(add_more.ready, "what has added more")
    assert worker.log.count("worker process ending") == 0
    ledger.tell("first")
    assert worker.wait() == 0
    assert first.successful()


def test_progress_is_shown_until_the_last_set_has_ended(start: Start, ledger: Ledger) -> None:
    calls = [tasks.hold.subtask(("go",)), tasks.write.subtask(("x",))]
    TaskSet(calls, name="two calls").apply_async()
    worker = start("--burst", "--progress", "--processes", "1")
    wait_until(lambda: "] 50 % of 2" in worker.log.replace("  ", " "), "the first line")
    ledger.tell("go")
    assert worker.wait() == 0
    assert "100 % of 2, 0 failed, 0 revoked, SUCCESSFUL two calls" in worker.log
