"""What users' code does to a worker, and what its surroundings do."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection

from django_tasksets import AsyncResult, TaskSet, subtask
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from tests import services
from tests import tasks_worker as tasks
from tests.processes.running import LIMIT, Files, Start, status, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def row_of(result: AsyncResult) -> SubtaskRecord:
    return SubtaskRecord.objects.get(id=result.id)


def test_nothing_that_tasks_do_ends_a_worker(start: Start, files: Files) -> None:
    other = TaskSetRecord.objects.create(status="SAVED", name="before")
    key = str(other.id)
    leaves = tasks.leave.delay()
    interrupts = tasks.interrupt.delay()
    cancelled = tasks.await_cancelled.delay()
    objects = tasks.give_object.delay()
    open_ = tasks.leave_transaction_open.delay()
    rolled_back = tasks.rename_atomically.delay(key, "rolled back", "fail")
    broken = tasks.fail_in_database.delay()
    soft = tasks.soft_limit.apply_async(soft_time_limit=0.5)
    handled = tasks.soft_limit_handled.apply_async(soft_time_limit=0.5)
    soft_async = tasks.soft_limit_async.apply_async(soft_time_limit=0.5)
    deadlock = tasks.deadlock_once.delay(files.ledger)
    worker = start("--burst", "--threads=2")
    assert worker.wait() == 0
    assert worker.log.count("process started") == 1

    assert "SystemExit: 3" in row_of(leaves).reason
    assert "KeyboardInterrupt" in row_of(interrupts).reason
    assert "CancelledError" in row_of(cancelled).reason
    assert row_of(objects).reason == "the result cannot be stored"
    for failed in (leaves, interrupts, cancelled, objects, rolled_back, soft, soft_async):
        assert (failed.status, row_of(failed).attempts) == ("FAILED", 1)
    assert "SoftTimeLimitExceeded" in row_of(soft).reason
    assert "SoftTimeLimitExceeded" in row_of(soft_async).reason
    assert handled.get() == "handled"
    assert (open_.status, broken.ready()) == ("SUCCESSFUL", True)
    assert "a transaction was left open" in worker.log
    # What was written in transactions that did not commit is not there.
    assert TaskSetRecord.objects.get(id=other.id).name == "before"
    assert deadlock.get() == "after all"
    assert (row_of(deadlock).claims, row_of(deadlock).attempts) == (2, 1)


def test_an_atomic_task_commits_with_its_record(start: Start) -> None:
    other = TaskSetRecord.objects.create(status="SAVED", name="before")
    calls = [tasks.rename_atomically.subtask((str(other.id), "after"))]
    result = TaskSet(calls).apply_async()
    assert start("--burst").wait() == 0
    assert result.join(timeout=1) == ["after"]
    assert TaskSetRecord.objects.get(id=other.id).name == "after"


def test_a_time_limit_ends_what_does_not_end_itself(start: Start, files: Files) -> None:
    never = str(files.directory / "never")
    late_sync = tasks.hold_deaf.apply_async((files.ledger, "late", never), time_limit=1)
    start()
    wait_for(late_sync.ready, "it is over its limit")
    assert row_of(late_sync).reason == "time limit exceeded"
    late_async = tasks.hold_async.apply_async((files.ledger, "late", never), time_limit=0.5)
    deaf_async = tasks.block_the_loop.apply_async((files.ledger, "deaf", never), time_limit=0.5)
    wait_for(lambda: late_async.ready() and deaf_async.ready(), "they are over their limits")
    assert {late_async.status, deaf_async.status} == {"FAILED"}


@pytest.mark.parametrize(
    ("guilty", "cause"),
    [
        (tasks.crash.subtask(), "SIGSEGV"),
        # As if it had ended in order.
        (tasks.exit_at_once.subtask((0,)), "exited with code 0"),
    ],
)
def test_what_kills_its_process_fails_and_takes_nothing_with_it(
    start: Start, files: Files, guilty: subtask, cause: str
) -> None:
    innocent = [tasks.write.subtask((files.ledger, "innocent"))] * 20
    result = TaskSet(
        [*innocent[:10], guilty, *innocent[10:]],
        on_finish=tasks.write_state.subtask((files.ledger, "finish")),
    ).apply_async()
    worker = start("--burst", settings={"MAX_CRASHES": 2})
    assert worker.wait() == 0
    assert files.lines("finish") == ["finish FAILED"]
    progress = result.progress()
    assert (progress.successful, progress.failed) == (20, 1)
    row = SubtaskRecord.objects.members().get(status="FAILED")
    assert cause in row.reason
    assert row.crashes == 2


def test_an_unknown_task_waits_for_a_worker_that_knows_it(start: Start, files: Files) -> None:
    result = tasks.write.delay(files.ledger, "known")
    never = tasks.moment.delay()
    SubtaskRecord.objects.filter(id=never.id).update(task_name="tests.nowhere.known", claims=9)
    settings = {"UNKNOWN_TASK_WAIT": 5}
    ignorant = start(apps="", settings=settings)
    ignorant.wait_for_log("unknown task")
    start(settings=settings)
    assert result.get(timeout=LIMIT) == "known"
    wait_for(never.ready, "nobody knows it")
    row = SubtaskRecord.objects.get(id=never.id)
    assert (row.status, row.reason) == ("FAILED", "unknown task")
    assert row.claims == 11


def test_changed_code_starts_it_anew(start: Start, files: Files) -> None:
    module = files.directory / "watched_code.py"
    app = files.directory / "watched_app"
    app.mkdir()
    (app / "__init__.py").touch()
    (app / "tasks.py").write_text("from tests import tasks_worker\nimport watched_code\n")
    module.write_text("")
    worker = start.ready("--reload", apps="watched_app", path=str(files.directory), reload=True)
    (first,) = worker.workers()
    held = tasks.hold.delay(files.ledger, "held", files.gate)
    files.wait_for("begin")
    module.write_text("CHANGED = True\n")
    worker.wait_for_log("code changed")
    files.open_gate()
    wait_for(lambda: worker.workers() not in ([], [first]), "it is new")
    assert status(held) == "SUCCESSFUL"


@pytest.mark.skipif(connection.vendor != "sqlite", reason="takes a server that can be taken away")
def test_it_waits_for_the_database_at_the_start(start: Start, files: Files) -> None:
    database = Path(str(connection.settings_dict["NAME"]))
    missing = files.directory / "missing"
    worker = start(environment={services.DATABASE_NAME: str(missing / database.name)})
    worker.wait_for_log("worker waits for the database")
    assert "Traceback" not in worker.log
    missing.symlink_to(database.parent)
    assert isinstance(tasks.pid.delay().get(timeout=LIMIT), int)
    assert "gone" not in worker.log
