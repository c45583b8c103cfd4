"""The commands that look at sets, steer them, and delete what is old."""

from __future__ import annotations

import datetime
import io
import json
import uuid
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from django_tasksets import TaskSet
from django_tasksets.ids import new_id
from django_tasksets.models import SubtaskRecord, TaskSetRecord, WorkerRecord
from django_tasksets.statuses import RevokeFlag
from django_tasksets.testing import run_subtasks
from tests import tasks

pytestmark = pytest.mark.django_db
DAY = datetime.timedelta(days=1)


def call(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=out)
    return out.getvalue()


def three(**options: Any) -> Any:
    calls = (tasks.add.subtask((index, index)) for index in range(3))
    return TaskSet(calls, name="three", **options).apply_async()


def test_status_lists_sets_with_their_progress() -> None:
    result = three()
    run_subtasks(limit=1)
    assert call("tasksets").strip() == (
        f"{result.id} [{'#' * 9}{'.' * 21}]  33 % of 3, 0 failed, 0 revoked, RUNNING three"
    )


def test_status_of_one_set_as_json_watched_to_its_end() -> None:
    result = three()
    run_subtasks()
    line = call("tasksets", "status", result.id, "--json", "--watch")
    facts = json.loads(line)
    assert facts == {
        "id": result.id, "status": "SUCCESSFUL", "name": "three", "total": 3, "remaining": 0,
        "successful": 3, "failed": 0, "revoked": 0, "percent": 100,
    }  # fmt: skip


def test_a_set_is_steered_from_the_shell() -> None:
    result = three()
    assert "True" in call("tasksets", "pause", result.id)
    assert run_subtasks() == 0
    assert "True" in call("tasksets", "resume", result.id)
    assert "3 subtasks" in call("tasksets", "revoke", result.id)
    assert "took 3" in call("tasksets", "retry", result.id)
    run_subtasks()
    assert result.successful()
    again = call("tasksets", "rerun", result.id).split()[-1]
    run_subtasks()
    call("tasksets", "delete", again)
    assert [str(key) for key in TaskSetRecord.objects.values_list("id", flat=True)] == [result.id]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["revoke"], "needs the id"),
        (["revoke", "nonsense"], "not an id"),
        (["revoke", str(uuid.uuid4())], "there is no task set"),
        (["pause", str(uuid.uuid4()), "--terminate"], "go with revoke"),
    ],
)
def test_what_cannot_be_steered_is_said(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call("tasksets", *arguments)


def test_a_subtask_is_steered_from_the_shell() -> None:
    result = tasks.add.delay(1, 1)
    assert "1 subtasks" in call("tasksets", "revoke", result.id, "--reason", "why not")
    assert result.record is not None
    assert (result.status, result.record.reason) == ("REVOKED", "why not")
    assert "took 1" in call("tasksets", "retry", result.id)
    run_subtasks()
    assert result.get() == 2
    with pytest.raises(CommandError, match="for task sets"):
        call("tasksets", "pause", result.id)
    call("tasksets", "forget", result.id)
    assert result.record is None


def test_what_executes_is_revoked_with_its_process_from_the_shell() -> None:
    result = three()
    SubtaskRecord.objects.filter(taskset_id=result.id).update(status="RUNNING")
    call("tasksets", "revoke", result.id, "--terminate")
    flags = SubtaskRecord.objects.values_list("revoke_flag", flat=True)
    assert set(flags) == {RevokeFlag.TERMINATE}


def test_results_are_forgotten_from_the_shell() -> None:
    result = three()
    with pytest.raises(CommandError, match="unfinished"):
        call("tasksets", "forget", result.id)
    run_subtasks()
    call("tasksets", "forget", result.id)
    assert result.progress().successful == 3
    assert set(SubtaskRecord.objects.values_list("return_value", flat=True)) == {None}


def test_an_unfinished_set_is_not_deleted() -> None:
    result = three()
    with pytest.raises(CommandError, match="unfinished"):
        call("tasksets", "delete", result.id)


def age(result: Any, days: int) -> None:
    moment = timezone.now() - days * DAY
    TaskSetRecord.objects.filter(id=uuid.UUID(result.id)).update(finished_at=moment)


def test_pruning_deletes_what_is_past_its_retention_and_nothing_else() -> None:
    old, young, unfinished, failed = three(), three(), three(), three()
    TaskSetRecord.objects.filter(id=uuid.UUID(unfinished.id)).update(
        enqueued_at=timezone.now() - 99 * DAY
    )
    unfinished_ids = SubtaskRecord.objects.filter(taskset_id=uuid.UUID(unfinished.id))
    unfinished_ids.update(queue_name="later")
    failed.revoke()
    single = tasks.add.delay(1, 1)
    run_subtasks(queues=["default"])
    age(old, 20)
    age(young, 10)
    age(failed, 20)
    SubtaskRecord.objects.filter(id=single.id).update(finished_at=timezone.now() - 20 * DAY)

    assert call("prunetasksets", "--dry-run").startswith("would delete 1 task sets, 1 single")
    assert call("prunetasksets").startswith("deleted 1 task sets, 1 single subtasks")
    left = {str(key) for key in TaskSetRecord.objects.values_list("id", flat=True)}
    assert left == {young.id, unfinished.id, failed.id}
    assert call("prunetasksets", "--older-than", "9d", "--failed-older-than", "36h") == (
        "deleted 2 task sets, 0 single subtasks and 0 lost workers\n"
    )


def test_pruning_spares_a_set_whose_callback_is_unfinished() -> None:
    result = three(on_finish=tasks.add.subtask((1,), {}, {"queue": "later"}))
    run_subtasks(queues=["default"])
    age(result, 99)
    assert call("prunetasksets").startswith("deleted 0 task sets")


def test_pruning_forgets_lost_workers_that_nothing_names() -> None:
    WorkerRecord.objects.create(host="here", pid=1, lost_at=timezone.now() - 8 * DAY)
    WorkerRecord.objects.create(host="here", pid=2)
    assert call("prunetasksets").endswith("1 lost workers\n")
    assert WorkerRecord.objects.get().pid == 2


def test_health_is_a_live_worker() -> None:
    with pytest.raises(SystemExit):
        call("taskworkerhealth")
    worker = WorkerRecord.objects.create(host="here", pid=1)
    assert call("taskworkerhealth", "--host", "here") == "healthy\n"
    with pytest.raises(SystemExit):
        call("taskworkerhealth", "--host", "elsewhere")
    WorkerRecord.objects.filter(id=worker.id).update(heartbeat_at=timezone.now() - DAY)
    with pytest.raises(SystemExit):
        call("taskworkerhealth")


def test_health_is_queues_that_move() -> None:
    WorkerRecord.objects.create(host="here", pid=1)
    three()
    assert call("taskworkerhealth", "--max-waiting", "60") == "healthy\n"
    SubtaskRecord.objects.update(enqueued_at=timezone.now() - DAY)
    with pytest.raises(SystemExit):
        call("taskworkerhealth", "--max-waiting", "60")
    assert call("taskworkerhealth", "--max-waiting", "60", "--queue", "other") == "healthy\n"


def test_what_could_not_begin_before_has_not_waited() -> None:
    WorkerRecord.objects.create(host="here", pid=1)
    tasks.add.delay(1, 1)
    then = timezone.now() - DAY
    SubtaskRecord.objects.update(enqueued_at=then, run_after=timezone.now())
    assert call("taskworkerhealth", "--max-waiting", "60") == "healthy\n"
    SubtaskRecord.objects.all().delete()
    result = three(on_success=tasks.total.subtask())
    run_subtasks(limit=3)
    SubtaskRecord.objects.update(enqueued_at=then)
    assert call("taskworkerhealth", "--max-waiting", "60") == "healthy\n"
    age(result, 1)
    with pytest.raises(SystemExit):
        call("taskworkerhealth", "--max-waiting", "60")


def test_verifying_finds_and_repairs_wrong_counts() -> None:
    right, wrong = three(), three()
    run_subtasks()
    assert call("verifytasksets") == "0 task sets with wrong counts\n"
    TaskSetRecord.objects.filter(id=uuid.UUID(wrong.id)).update(successful=2, failed=1)
    with pytest.raises(SystemExit):
        call("verifytasksets")
    assert call("verifytasksets", right.id) == "0 task sets with wrong counts\n"
    assert "repaired" in call("verifytasksets", wrong.id, "--fix")
    assert call("verifytasksets") == "0 task sets with wrong counts\n"


def test_verifying_takes_ids() -> None:
    with pytest.raises(CommandError, match="not an id"):
        call("verifytasksets", "nonsense")
    unknown = str(new_id())
    with pytest.raises(CommandError, match=f"there is no task set {unknown}"):
        call("verifytasksets", unknown)
    assert call("verifytasksets", three().id) == "0 task sets with wrong counts\n"


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["status", "--watch"], "--watch needs the id"),
        (["--terminate"], "go with revoke"),
        (["--limit", "-1"], "not a whole number from 1"),
    ],
)
def test_what_would_be_ignored_is_refused(arguments: list[str], advice: str) -> None:
    with pytest.raises(CommandError, match=advice):
        call("tasksets", *arguments)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="tables are renamed in a transaction")
@pytest.mark.parametrize(
    "name", ["tasksets", "taskworkerhealth", "prunetasksets", "verifytasksets"]
)
def test_a_database_without_tables_is_told_in_one_line(name: str) -> None:
    with connection.cursor() as cursor:
        for model in (TaskSetRecord, SubtaskRecord, WorkerRecord):
            table = model._meta.db_table
            cursor.execute(f"ALTER TABLE {table} RENAME TO gone_{table}")
    with pytest.raises(CommandError, match="run `migrate`"):
        call(name)
