"""TaskSet.apply_all(): many sets at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_tasksets import (
    AlreadyApplied,
    DuplicateId,
    InvalidCall,
    InvalidOption,
    TaskSet,
    TaskSetStatus,
    gen_unique_id,
    signals,
    subtask,
)
from django_tasksets.ids import new_id
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.store import get_store
from django_tasksets.testing import run_subtasks
from tests.tasks import add, describe, echo, noop, total

pytestmark = pytest.mark.django_db


def sets_of(*sizes: int) -> Iterator[TaskSet]:
    """Sets of calls that return the number of their set."""
    for number, size in enumerate(sizes):
        yield TaskSet((echo.subtask((number,)) for _ in range(size)), name=f"set {number}")


def test_each_has_its_own_members_and_callbacks() -> None:
    first, second = TaskSet.apply_all(
        TaskSet([add.subtask((n, i)) for i in range(3)], on_success=total.subtask())
        for n in (10, 20)
    )
    run_subtasks()
    assert (first.join(), second.join()) == ([10, 11, 12], [20, 21, 22])
    assert first.callbacks["on_success"].get() == 33
    assert second.callbacks["on_success"].get() == 63


def test_the_rows_are_those_of_sets_applied_one_by_one(django_user_model: type[User]) -> None:
    owner = django_user_model.objects.create(username="owner")

    def made() -> TaskSet:
        return TaskSet(
            [add.subtask((1, 2)), noop.subtask(options={"weight": 3, "countdown": 60})],
            on_success=total.subtask(options={"countdown": 5}),
            on_finish=describe.subtask(),
            name="Alike",
            metadata={"x": [1]},
            owner=owner,
            related=owner,
            max_failures="5%",
        )

    one, (other,) = made().apply_async(), TaskSet.apply_all([made()])
    own = {"id", "taskset_id", "enqueued_at", "sealed_at", "claim_order", "run_after"}
    assert one.record is not None
    assert other.record is not None
    assert values(one.record, own) == values(other.record, own)
    subtasks = SubtaskRecord.objects.order_by("position")
    rows, others = (
        [values(row, own) for row in subtasks.filter(taskset=result.record)]
        for result in (one, other)
    )
    assert len(rows) == 4
    assert rows == others


def values(row: Any, without: set[str]) -> dict[str, Any]:
    names = (field.attname for field in row._meta.concrete_fields)
    return {name: getattr(row, name) for name in names if name not in without}


def test_they_are_claimed_one_after_the_other() -> None:
    results = TaskSet.apply_all(sets_of(3, 2))
    single = echo.delay("single")
    order = [row.id for row in get_store().claim(new_id(), [], 10)]
    of_set = dict(SubtaskRecord.objects.values_list("id", "taskset_id"))
    ids = [of_set[key] for key in order]
    first, second = (result.record.id for result in results if result.record)
    # What comes after them waits for one of them, and not for all.
    assert ids == [first, None, first, first, second, second]
    assert single.record is not None


def test_it_takes_a_few_statements_however_many_there_are() -> None:
    def statements(count: int) -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            TaskSet.apply_all(sets_of(*[2] * count))
        return len(captured)

    statements(1)
    assert statements(60) <= statements(2) + 2


def test_no_sets_are_nothing() -> None:
    assert TaskSet.apply_all([]) == []
    assert not TaskSetRecord.objects.exists()


def test_empty_ones_finish_at_once(django_capture_on_commit_callbacks: Any) -> None:
    finished: list[Any] = []

    def receive(taskset_id: Any, **_: Any) -> None:
        finished.append(taskset_id)

    signals.taskset_finished.connect(receive)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            empty, full = TaskSet.apply_all(
                TaskSet(calls, on_finish=describe.subtask()) for calls in ([], [noop.subtask()])
            )
    finally:
        signals.taskset_finished.disconnect(receive)
    assert empty.status == TaskSetStatus.SUCCESSFUL
    assert full.status == TaskSetStatus.RUNNING
    assert [str(key) for key in finished] == [empty.taskset_id]
    ready = SubtaskRecord.objects.filter(position__lt=0, status="READY")
    assert [str(row.taskset_id) for row in ready] == [empty.taskset_id]


def test_each_is_told_of_when_it_is_enqueued(django_capture_on_commit_callbacks: Any) -> None:
    told: list[tuple[str, int]] = []

    def receive(taskset_id: Any, total: int, **_: Any) -> None:
        told.append((str(taskset_id), total))

    signals.taskset_enqueued.connect(receive)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            results = TaskSet.apply_all(sets_of(2, 1))
    finally:
        signals.taskset_enqueued.disconnect(receive)
    assert told == [(results[0].taskset_id, 2), (results[1].taskset_id, 1)]


@pytest.mark.parametrize(
    ("wrong", "error", "where"),
    [
        (TaskSet([add.subtask((1, 1)), subtask("no.such.task")]), Exception, "set 1, subtask 1"),
        (
            TaskSet([noop.subtask()], on_finish=subtask("no.such.task")),
            Exception,
            "set 1: on_finish",
        ),
        (TaskSet([noop.subtask()], name="x" * 201), InvalidOption, "set 1: name="),
        ([noop.subtask()], InvalidCall, "set 1: expected a TaskSet"),
    ],
    ids=["member", "callback", "name", "list"],
)
def test_one_that_is_wrong_is_named_and_nothing_is_written(
    wrong: Any, error: type[Exception], where: str
) -> None:
    with pytest.raises(error, match=where):
        TaskSet.apply_all([TaskSet([noop.subtask()]), wrong])
    assert not TaskSetRecord.objects.exists()
    assert not SubtaskRecord.objects.exists()


@pytest.mark.parametrize("wrong", [None, 5, TaskSet([noop.subtask()])], ids=repr)
def test_what_is_no_iterable_of_sets_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidCall, match="iterable of task sets"):
        TaskSet.apply_all(wrong)


def test_a_taken_id_is_named_and_leaves_the_transaction_alive() -> None:
    call = noop.subtask(options={"task_id": gen_unique_id()})
    with pytest.raises(DuplicateId, match="two of the subtasks"):
        TaskSet.apply_all([TaskSet([call]), TaskSet([call])])
    assert not TaskSetRecord.objects.exists()
    assert not SubtaskRecord.objects.exists()


def test_lazy_ones_are_drained_and_know_their_totals() -> None:
    lazy, listed = TaskSet(echo.subtask((n,)) for n in range(3)), TaskSet([noop.subtask()])
    TaskSet.apply_all([lazy, listed])
    assert (lazy.total, listed.total) == (3, 1)
    with pytest.raises(AlreadyApplied, match="generator"):
        TaskSet.apply_all([TaskSet([noop.subtask()]), lazy])
    assert TaskSetRecord.objects.count() == 2


def test_under_always_eager_all_are_executed(settings: Any) -> None:
    settings.TASKSETS = {**settings.TASKSETS, "ALWAYS_EAGER": True}
    sets = [
        TaskSet([add.subtask((1, 2))], on_success=total.subtask()),
        TaskSet([], on_finish=describe.subtask()),
    ]
    first, second = TaskSet.apply_all(sets)
    assert first.callbacks["on_success"].get() == 3
    assert second.callbacks["on_finish"].ready()


@pytest.mark.django_db(transaction=True)
def test_it_has_an_async_twin() -> None:
    (result,) = async_to_sync(TaskSet.aapply_all)(sets_of(2))
    assert result.total == 2
