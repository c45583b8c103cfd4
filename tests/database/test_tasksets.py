from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, Group, User
from django.db import connection, transaction
from django.utils import timezone

from django_tasksets import (
    AlreadyApplied,
    AsyncResult,
    DuplicateId,
    InvalidCall,
    InvalidId,
    InvalidOption,
    NotStorable,
    TaskSet,
    TaskSetResult,
    TaskSetSealed,
    UnknownTask,
    arguments,
    gen_unique_id,
    subtask,
    task,
)
from django_tasksets.context import Request, current_request
from django_tasksets.ids import new_id
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.store import get_store
from django_tasksets.testing import run_subtasks
from tests.tasks import add, describe, echo, fail, noop, total

pytestmark = pytest.mark.django_db


def adds(count: int) -> Iterator[subtask]:
    return (add.subtask((i, i)) for i in range(count))


# What it is made of


def test_a_list_is_copied_and_the_set_is_like_one() -> None:
    given = list(adds(2))
    job = TaskSet(given)
    job.append(add.subtask((2, 2)))
    job.extend(adds(1))
    assert len(given) == 2
    assert (len(job), job.total) == (4, 4)
    assert list(job) == job.tasks == [*given, add.subtask((2, 2)), add.subtask((0, 0))]
    assert job[0] == given[0]


def test_a_generator_is_drained_when_it_is_applied() -> None:
    drained = []

    def generate() -> Iterator[subtask]:
        for i in range(3):
            drained.append(i)
            yield add.subtask((i, i))

    job = TaskSet(generate())
    assert job
    assert "lazy" in repr(job)
    assert drained == []
    result = job.apply_async()
    assert drained == [0, 1, 2]
    assert job.total == result.total == 3


def test_a_drained_generator_says_so() -> None:
    job = TaskSet(adds(3))
    job.apply_async()
    with pytest.raises(AlreadyApplied, match="generator"):
        job.apply_async()
    assert TaskSetRecord.objects.count() == 1


def test_a_lazy_set_that_was_looked_at_is_a_list() -> None:
    job = TaskSet(adds(3))
    assert len(job) == 3
    assert job.apply_async().id != job.apply_async().id
    assert SubtaskRecord.objects.count() == 6


def test_a_list_may_be_applied_again() -> None:
    job = TaskSet(list(adds(1)))
    assert job.apply_async() != job.apply_async()


@pytest.mark.parametrize(
    "tasks",
    [add, "tests.tasks.add", add.subtask((1, 1)), 5],
    ids=["task", "name", "subtask", "int"],
)
def test_what_is_no_iterable_of_subtasks_is_refused(tasks: Any) -> None:
    with pytest.raises(InvalidCall, match="one iterable of subtasks"):
        TaskSet(tasks)


def test_the_old_form_is_refused_with_advice() -> None:
    with pytest.raises(InvalidCall, match=r"add\.subtask"):
        TaskSet(add, [[(1, 1), {}]])  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [add, (1, 2), None, {"task": "tests.tasks.add"}])
def test_a_wrong_member_is_named_and_nothing_is_written(wrong: Any) -> None:
    with pytest.raises(InvalidCall, match="subtask 1"):
        TaskSet([add.subtask((1, 1)), wrong]).apply_async()
    assert not TaskSetRecord.objects.exists()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (subtask("no.such.task"), UnknownTask),
        (echo.subtask((object(),)), NotStorable),
        (echo.subtask(options={"priority": 1000}), InvalidOption),
        (echo.subtask(options={"priorty": 1}), InvalidOption),
    ],
)
def test_what_cannot_be_enqueued_is_refused_and_nothing_is_written(
    wrong: subtask, error: type[Exception]
) -> None:
    with pytest.raises(error):
        TaskSet([*adds(1), wrong]).apply_async()
    with pytest.raises(error):
        TaskSet(adds(1), on_finish=wrong).apply_async()
    assert not TaskSetRecord.objects.exists()
    assert not SubtaskRecord.objects.exists()


def test_dicts_do_as_well() -> None:
    result = TaskSet([dict(add.subtask((1, 2)))]).apply_async()
    run_subtasks()
    assert result.join() == [3]


# What it is told


def test_it_keeps_what_it_is_about(django_user_model: type[User]) -> None:
    owner = django_user_model.objects.create(username="owner")
    related = django_user_model.objects.create(username="related")
    job = TaskSet(adds(1), name="Add", metadata={"x": (1, 2)}, owner=owner, related=related)
    record = job.apply_async().record
    assert record is not None
    assert (record.name, record.get_metadata()) == ("Add", {"x": (1, 2)})
    assert (record.owner, record.related) == (owner, related)
    assert repr(job) == "<TaskSet: Add>"


def test_an_anonymous_owner_is_none() -> None:
    record = TaskSet(adds(1), owner=AnonymousUser()).apply_async().record
    assert record is not None
    assert record.owner is None


@pytest.mark.parametrize("options", [{"owner": 5}, {"related": 5}, {"related": User()}])
def test_owners_and_related_instances_are_models(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        TaskSet(adds(1), **options).apply_async()


def test_options_of_celery_have_no_effect() -> None:
    TaskSet(adds(1), publisher=None).apply_async(connection=None, connect_timeout=4)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"on_sucess": noop.subtask()}, "did you mean 'on_success'"),
        ({"max_failure": 1}, "did you mean 'max_failures'"),
        ({"fail_fast": True, "max_failures": 1}, "fail_fast is max_failures=0"),
        ({"on_success": noop.subtask(), "callback": noop.subtask()}, "give one of them"),
        ({"max_failures": -1}, "neither a number nor"),
        ({"max_failures": True}, "neither a number nor"),
        ({"max_failures": "101%"}, "neither a number nor"),
        ({"max_failures": "many"}, "neither a number nor"),
        ({"name": "x" * 201}, "longer than 200"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], advice: str) -> None:
    with pytest.raises(InvalidOption, match=advice):
        TaskSet(adds(1), **options).apply_async()
    with pytest.raises(InvalidOption, match="apply_async"):
        TaskSet(adds(1)).apply_async(countdown=5)


# Callbacks


def test_on_success_is_called_with_the_results() -> None:
    result = TaskSet(adds(3), on_success=total.subtask()).apply_async()
    run_subtasks()
    assert result.callbacks["on_success"].get() == 0 + 2 + 4


def test_callback_is_on_success() -> None:
    result = TaskSet(adds(2), callback=echo.subtask(("x",))).apply_async()
    run_subtasks()
    assert list(result.callbacks) == ["on_success"]
    assert result.callbacks["on_success"].get() == [[[0, 2], "x"], {}]


def test_on_failure_is_called_with_the_set() -> None:
    result = TaskSet(
        [*adds(1), fail.subtask()],
        on_success=noop.subtask(),
        on_failure=describe.subtask(("note",)),
        on_finish=describe.subtask(),
    ).apply_async()
    run_subtasks()
    callbacks = result.callbacks
    assert callbacks["on_failure"].get() == [result.id, "FAILED", "note"]
    assert callbacks["on_finish"].get() == [result.id, "FAILED", ""]
    assert callbacks["on_success"].state == "REVOKED"
    assert result.total == 2


def test_the_other_one_is_not_needed() -> None:
    job = TaskSet(adds(1), on_success=total.subtask(), on_failure=describe.subtask())
    result = job.apply_async()
    run_subtasks()
    record = result.callbacks["on_failure"].record
    assert record is not None
    assert (record.status, record.reason) == ("REVOKED", "not needed")


def test_an_immutable_callback_gets_nothing() -> None:
    result = TaskSet(adds(1), on_success=echo.si("only"), on_finish=noop.si()).apply_async()
    run_subtasks()
    assert result.callbacks["on_success"].get() == [["only"], {}]
    assert result.callbacks["on_finish"].successful()


@pytest.mark.parametrize("kind", ["on_success", "callback", "on_failure", "on_finish"])
def test_callbacks_are_subtasks(kind: str) -> None:
    wrong: dict[str, Any] = {kind: noop}
    with pytest.raises(InvalidCall, match=r"subtask, as in"):
        TaskSet(adds(1), **wrong)


def test_an_empty_set_finishes_at_once() -> None:
    result = TaskSet([], on_success=echo.subtask()).apply_async()
    assert result.ready()
    assert result.successful()
    assert result.join() == []
    run_subtasks()
    assert result.callbacks["on_success"].get() == [[[]], {}]


def test_a_set_of_one_joins_to_a_list_of_one() -> None:
    result = TaskSet(adds(1)).apply_async()
    run_subtasks()
    assert result.join() == [0]


# Policy


@pytest.mark.parametrize(
    ("policy", "failed"),
    [
        ({"fail_fast": True}, 1),
        ({"max_failures": 2}, 3),
        ({"max_failures": "20%"}, 3),
        ({"max_failures": "100 %"}, 10),
        ({}, 10),
    ],
)
def test_past_the_limit_the_rest_is_revoked(policy: dict[str, Any], failed: int) -> None:
    calls = [fail.subtask() for _ in range(10)]
    applied = TaskSet(calls, **policy).apply_async()
    run_subtasks()
    here = TaskSet(calls, **policy).apply()
    for result in (applied, here):
        progress = result.progress()
        assert (progress.failed, progress.revoked) == (failed, 10 - failed)


# Ids


def test_it_may_be_given_an_id() -> None:
    key = gen_unique_id()
    assert TaskSet(adds(1)).apply_async(taskset_id=key) == key
    with pytest.raises(AlreadyApplied):
        TaskSet(adds(1)).apply_async(taskset_id=key)
    assert SubtaskRecord.objects.count() == 1


def test_a_saved_set_is_applied_with_the_ids_that_it_was_saved_with() -> None:
    setid, keys = gen_unique_id(), [gen_unique_id() for _ in range(3)]
    saved = TaskSetResult(setid, [AsyncResult(key) for key in keys])
    saved.save()
    saved.save()
    with pytest.raises(AlreadyApplied, match="other subtask ids"):
        TaskSet(adds(3)).apply_async(taskset_id=setid)
    calls = [add.subtask((1, 1), options={"task_id": key}) for key in keys]
    applied = TaskSet(calls).apply_async(taskset_id=setid)
    assert [r.id for r in applied.results] == keys
    run_subtasks()
    assert applied.join() == saved.join() == [2, 2, 2]


def test_a_taken_id_leaves_the_transaction_alive() -> None:
    taken = add.delay(1, 1).id
    with transaction.atomic():
        with pytest.raises(DuplicateId):
            add.apply_async((1, 1), task_id=taken)
        with pytest.raises(DuplicateId):
            TaskSet([add.subtask((1, 1), options={"task_id": taken})]).apply_async()
        TaskSet(adds(1)).apply_async()
    assert TaskSetRecord.objects.count() == 1


def test_it_is_rolled_back_with_the_caller() -> None:
    with transaction.atomic():
        TaskSet(adds(3), on_finish=noop.subtask()).apply_async()
        transaction.set_rollback(True)
    assert not TaskSetRecord.objects.exists()
    assert not SubtaskRecord.objects.exists()


@pytest.mark.skipif(connection.vendor == "sqlite", reason="Python's driver commits by itself then")
@pytest.mark.django_db(transaction=True)
def test_it_is_written_where_the_caller_commits_by_hand() -> None:
    transaction.set_autocommit(False)
    try:
        single = add.delay(1, 2)
        TaskSet(adds(3)).apply_async()
        connection.rollback()
        assert not SubtaskRecord.objects.exists()
        single = add.delay(1, 2)
        connection.commit()
    finally:
        connection.rollback()
        transaction.set_autocommit(True)
    run_subtasks()
    assert single.get() == 3


@pytest.mark.parametrize("page", [1, 2, 4, 5, 100])
def test_a_callback_has_all_results_in_their_order(
    monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(arguments, "PAGE", page)
    result = TaskSet(adds(4), on_success=echo.subtask()).apply_async()
    run_subtasks()
    assert result.callbacks["on_success"].get() == [[[0, 2, 4, 6]], {}]


# Adding while it runs


def test_an_open_set_does_not_finish_before_its_block() -> None:
    with TaskSet(adds(1), on_success=total.subtask()).open() as result:
        run_subtasks()
        assert not result.ready()
        assert result.progress().is_open
        (added,) = result.add(add.subtask((5, 5)))
        more = result.add(adds(2))
        run_subtasks()
        assert added.get() == 10
        assert [r.get() for r in more] == [0, 2]
        assert result.waiting()
    assert result.successful()
    run_subtasks()
    assert result.callbacks["on_success"].get() == 12


def test_an_error_in_the_block_revokes_the_set() -> None:
    key = gen_unique_id()

    def crawl() -> None:
        with TaskSet(on_failure=describe.subtask()).open(taskset_id=key) as opened:
            opened.add(adds(3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crawl()
    result = TaskSetResult(key)
    assert result.status == "REVOKED"
    assert [r.state for r in result.results] == ["REVOKED"] * 3
    run_subtasks()
    assert result.callbacks["on_failure"].get() == [result.id, "REVOKED", ""]
    record = result.record
    assert record is not None
    assert "ZeroDivisionError" in record.revoke_reason


def test_what_breaks_the_transaction_is_what_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    def crawl() -> None:
        with transaction.atomic(), TaskSet(adds(1)).open():
            transaction.set_rollback(True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crawl()
    assert "open taskset not revoked" in caplog.text
    assert not TaskSetRecord.objects.exists()


def test_a_sealed_set_takes_no_more() -> None:
    with TaskSet().open() as result:
        pass
    assert result.successful()
    with pytest.raises(TaskSetSealed):
        result.add(add.subtask((1, 1)))
    waiting = TaskSet(adds(1)).apply_async()
    with pytest.raises(TaskSetSealed):
        waiting.add(add.subtask((1, 1)))
    with pytest.raises(TaskSetSealed):
        add.apply_async((1, 1), taskset_id=waiting.id)


def test_a_call_that_was_changed_by_hand_is_applied_like_any_other() -> None:
    call = add.subtask((1,))
    call.args = [1, 2]  # type: ignore[assignment]
    call.task = add  # type: ignore[assignment]
    call["note"] = "of the caller's"
    results = [call.apply_async(), add.s(1, 2).apply_async(taskset_id=None)]
    result = TaskSet(adds(1)).open().__enter__()
    added = add.s(1, 2).apply_async(taskset_id=result.id)
    inside = add.subtask((1, 2), options={"taskset_id": result.id}).apply_async()

    run_subtasks()

    assert [one.get() for one in (*results, added, inside)] == [3] * 4
    assert len(result.results) == 3


@task(bind=True)
def split(self: Any, size: int) -> int:
    """Adds its halves to its own set."""
    if size > 1:
        result = TaskSetResult(self.request.taskset)
        result.add([split.subtask((size // 2,)), split.subtask((size - size // 2,))])
    return size


def test_a_member_adds_to_its_own_set() -> None:
    result = TaskSet([split.subtask((4,))], on_success=total.subtask()).apply_async()
    run_subtasks()
    assert sorted(result.join()) == [1, 1, 1, 1, 2, 2, 4]
    assert result.callbacks["on_success"].get() == 12


@pytest.mark.parametrize("end", ["finish", "revoke"])
def test_a_member_that_goes_on_after_the_end_adds_nothing(end: str) -> None:
    """Somebody else has ended it, or its set is being revoked."""
    result = TaskSet([noop.subtask(), noop.subtask()]).apply_async()
    key = uuid.UUID(result.taskset_id)
    if end == "finish":
        run_subtasks()
    else:
        get_store().claim(new_id(), (), 1)
        result.revoke()
        assert not result.ready()
    total = result.total
    token = current_request.set(Request(subtask_id=new_id(), taskset_id=key))
    try:
        with pytest.raises(TaskSetSealed):
            result.add(noop.subtask())
    finally:
        current_request.reset(token)
    assert TaskSetRecord.objects.get().total == total
    assert SubtaskRecord.objects.count() == total


# Here and now


def test_apply_executes_everything_here_and_writes_nothing() -> None:
    job = TaskSet(adds(3), on_success=total.subtask(), on_finish=describe.subtask())
    result = job.apply()
    assert result.join() == list(result.iterate()) == [0, 2, 4]
    assert result.successful()
    assert result[1].get() == 2
    assert result.callbacks["on_success"].get() == 6
    assert result.callbacks["on_finish"].get() == [result.id, "SUCCESSFUL", ""]
    assert not TaskSetRecord.objects.exists()
    assert not SubtaskRecord.objects.exists()


def test_apply_calls_the_callback_that_is_due() -> None:
    job = TaskSet([fail.subtask()], on_success=noop.subtask(), on_failure=describe.subtask())
    result = job.apply()
    assert result.failed()
    assert result.callbacks["on_success"].state == "REVOKED"
    assert result.callbacks["on_failure"].get() == [result.id, "FAILED", ""]
    assert isinstance(result.join(propagate=False)[0], ValueError)
    with pytest.raises(ValueError, match="on purpose"):
        result.join()


def test_always_eager_writes_rows_and_runs_all_of_it(settings: Any) -> None:
    settings.TASKSETS = {**settings.TASKSETS, "ALWAYS_EAGER": True}
    result = TaskSet(adds(3), on_success=total.subtask()).apply_async()
    assert result.join() == [0, 2, 4]
    assert result.callbacks["on_success"].get() == 6
    assert add.delay(1, 2).get() == 3
    assert fail.delay().failed()
    assert SubtaskRecord.objects.count() == 6


def test_always_eager_steers_as_well(settings: Any) -> None:
    settings.TASKSETS = {**settings.TASKSETS, "ALWAYS_EAGER": True}
    result = TaskSet([fail.subtask()], on_failure=describe.subtask()).apply_async()
    assert result.retry_failed() == 1
    assert (result.status, result.progress().failed) == ("FAILED", 1)
    assert result.callbacks["on_failure"].ready()
    assert result[0].record is not None
    assert result[0].record.attempts == 2
    again = TaskSet(adds(2), on_success=total.subtask()).apply_async().rerun()
    assert (again.join(), again.callbacks["on_success"].get()) == ([0, 2], 2)
    with TaskSet().open() as held:
        held.pause()
        held.add(adds(2))
        assert not held.results[0].ready()
        held.resume()
        assert [one.get() for one in held.results] == [0, 2]


def test_an_empty_set_that_is_run_again_finishes_at_once() -> None:
    again = TaskSet([], on_success=total.subtask()).apply_async().rerun()
    assert again.status == "SUCCESSFUL"
    run_subtasks()
    assert again.callbacks["on_success"].get() == 0


def test_eager_propagates_raises(settings: Any) -> None:
    settings.TASKSETS = {**settings.TASKSETS, "ALWAYS_EAGER": True, "EAGER_PROPAGATES": True}
    with pytest.raises(ValueError, match="on purpose"):
        fail.delay()
    with pytest.raises(ValueError, match="on purpose"):
        fail.apply()


# The times of callbacks


def age(result: TaskSetResult, seconds: float) -> None:
    """As if the set had been applied that long ago."""
    span = datetime.timedelta(seconds=seconds)
    for row in SubtaskRecord.objects.filter(taskset=result.record):
        row.enqueued_at -= span
        row.expires_at = row.expires_at and row.expires_at - span
        row.save()


def test_the_seconds_of_a_callback_count_from_its_release() -> None:
    late = total.subtask((), {}, {"countdown": 60, "expires": 90, "max_retries": 7})
    result = TaskSet(adds(2), on_success=late).apply_async()
    age(result, 3600)

    run_subtasks()

    record = result.callbacks["on_success"].record
    assert record is not None
    assert record.status == "SCHEDULED"
    assert record.run_after is not None
    assert record.expires_at is not None
    left = (record.run_after - timezone.now()).total_seconds()
    assert 50 < left <= 60
    assert record.expires_at - record.run_after == pytest.approx(
        datetime.timedelta(seconds=30), abs=datetime.timedelta(seconds=1)
    )
    run_subtasks(scheduled=True)
    assert result.callbacks["on_success"].get() == 2


def test_so_do_those_of_the_next_generation() -> None:
    late = describe.subtask((), {}, {"countdown": 60})
    result = TaskSet([fail.subtask()], on_finish=late).apply_async()
    run_subtasks(scheduled=True)
    result.retry_failed()
    run_subtasks()
    assert result.callbacks["on_finish"].status == "SCHEDULED"


def test_a_moment_that_a_callback_is_given_is_that_moment() -> None:
    eta = timezone.now() + datetime.timedelta(days=1)
    result = TaskSet(adds(1), on_success=total.subtask((), {}, {"eta": eta})).apply_async()
    run_subtasks()
    record = result.callbacks["on_success"].record
    assert record is not None
    assert (record.status, record.run_after) == ("SCHEDULED", eta)


# With asyncio


def test_everything_has_an_async_twin() -> None:
    async def use() -> list[Any]:
        applied = await TaskSet(adds(2)).aapply_async()
        async with TaskSet(adds(1)).open() as opened:
            await opened.aadd(adds(2))
        assert await opened.awaiting()
        here = await TaskSet(adds(2)).aapply()
        return [applied, opened, await here.ajoin()]

    applied, opened, here = async_to_sync(use)()
    run_subtasks()
    assert applied.join() == here == [0, 2]
    assert opened.join() == [0, 0, 2]


def test_an_error_in_an_async_block_revokes_the_set() -> None:
    async def use() -> None:
        async with TaskSet(adds(1)).open(taskset_id=key):
            raise ZeroDivisionError

    key = gen_unique_id()
    with pytest.raises(ZeroDivisionError):
        async_to_sync(use)()
    assert TaskSetResult(key).status == "REVOKED"


# What cannot be


def exhausted() -> Iterator[subtask]:
    drained = adds(2)
    list(drained)
    return drained


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: TaskSet(exhausted()), InvalidCall, "exhausted"),
        (lambda: TaskSet(adds(1), owner=Group(pk=1)).apply_async(), InvalidOption, "not a user"),
        (lambda: TaskSet(adds(1), related=Group(pk=1)).apply_async(), InvalidOption, "not a saved"),
        (lambda: TaskSet(adds(1), max_failures=2**31), InvalidOption, "max_failures"),
        (lambda: TaskSet(adds(1), on_success={"task": "x"}), InvalidCall, "on_success: .*missing"),
        (lambda: TaskSet(adds(1)).apply_async().add(5), InvalidCall, "not 5"),  # type: ignore[arg-type]
        (lambda: add.subtask().apply_async(5), InvalidCall, "args=5"),  # type: ignore[arg-type]
        (lambda: add.subtask().apply_async("ab"), InvalidCall, "args='ab'"),
        (lambda: add.subtask((), [1]), InvalidCall, r"kwargs=\[1\]"),  # type: ignore[arg-type]
        (lambda: add.subtask((), {}, "no"), InvalidCall, "options='no'"),  # type: ignore[arg-type]
        (lambda: add.apply_async((1, 1), countdown=10**400), InvalidOption, "countdown"),
        (lambda: add.apply_async((1, 1), link={}), InvalidCall, "link: .*missing"),
        (lambda: add.apply_async((1, 1), link=0), InvalidCall, "link is a subtask"),  # type: ignore[arg-type]
        (lambda: AsyncResult("0x" + "1" * 30), InvalidId, "0x1"),
        (lambda: AsyncResult(" " + gen_unique_id()), InvalidId, "not an id"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    make: Any, error: type[Exception], words: str
) -> None:
    before = TaskSetRecord.objects.count(), SubtaskRecord.objects.count()
    with transaction.atomic():
        with pytest.raises(error, match=words):
            make()
        # The caller's transaction can go on.
        assert SubtaskRecord.objects.count() <= before[1] + 1


def test_a_link_may_be_given_by_a_generator() -> None:
    sent = add.apply_async((1, 1), link=(echo.subtask((i,)) for i in range(2)))
    run_subtasks()
    assert sent.get() == 2
    echoed = [row.get_return_value() for row in SubtaskRecord.objects.filter(task_name=echo.name)]
    assert sorted(echoed) == [[[2, 0], {}], [[2, 1], {}]]


def test_when_is_said_once_and_what_is_given_wins() -> None:
    later = timezone.now() + datetime.timedelta(days=1)
    stored = add.subtask((1, 1), {}, {"eta": later})
    assert stored.clone(countdown=0).options == {"countdown": 0}
    assert stored.clone(priority=1).options == {"eta": later, "priority": 1}


def test_a_reason_is_text_that_every_database_stores() -> None:
    result = TaskSet(adds(1)).apply_async()
    result.revoke(reason="no\0t \ud800" + "x" * 300)
    record = result[0].record
    assert record is not None
    assert record.reason.startswith("no\N{REPLACEMENT CHARACTER}t ?xxx")
    assert len(record.reason) == 200


def test_a_set_is_changed_like_a_list_until_it_is_applied() -> None:
    job = TaskSet(adds(3))
    del job[0]
    job[0] = add.subtask((7, 7))
    job.insert(0, job.pop())
    assert [call.args for call in job] == [(2, 2), (7, 7)]
    assert job.index(add.subtask((7, 7))) == 1
