from __future__ import annotations

import inspect
import json
import sys
import threading
import types
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections
from django.utils import timezone

from django_tasksets import (
    AsyncResult,
    EagerResult,
    InvalidId,
    InvalidOption,
    NotStorable,
    ResultTimeout,
    StillUnfinished,
    SubtaskFailed,
    SubtaskRevoked,
    Task,
    TaskSet,
    TaskSetResult,
    UnknownId,
    UnreadableValue,
    WouldDeadlock,
    codec,
    gen_unique_id,
    subtask,
    task,
)
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.statuses import SubtaskStatus
from django_tasksets.testing import run_subtasks
from tests.tasks import aadd, add, echo, fail, noop, retry_until, total

pytestmark = pytest.mark.django_db

Queries = Callable[[int], Any]


def adds(count: int) -> Iterator[subtask]:
    return (add.subtask((i, i)) for i in range(count))


class Demanding(Exception):
    """Cannot be made from its args."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(code)
        self.detail = detail


class Unprintable(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class Nested:
    class Error(LookupError):
        pass


RAISED: dict[str, Callable[[], BaseException]] = {
    "demanding": lambda: Demanding(5, detail="x"),
    "unprintable": lambda: Unprintable(5),
    "nested": lambda: Nested.Error("x", 1),
    "unstorable": lambda: ValueError(object()),
    "stop": StopIteration,
    "exit": lambda: SystemExit(3),
    "local": lambda: type("Local", (Exception,), {})("mine"),
    "os": lambda: FileNotFoundError(2, "No such file", "x.txt"),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "syntax": lambda: SyntaxError("no such word", ("x.py", 3, 1, "foo bar")),
}


@task
def raise_one_of_many(which: str) -> None:
    raise RAISED[which]()


@task(bind=True)
def wait_for(self: Task, other: AsyncResult) -> Any:
    return other.get(timeout=1)


# Handles


@pytest.mark.parametrize("handle", [AsyncResult, TaskSetResult])
def test_a_handle_is_its_id(handle: Any, django_assert_num_queries: Queries) -> None:
    key = uuid.uuid4()
    with django_assert_num_queries(0):
        made = handle(key)
        assert made == handle(str(key).upper()) == handle(key.hex) == str(key)
        assert hash(made) == hash(str(key))
        assert made != str(uuid.uuid4())
        assert made != 5
        assert isinstance(made.id, str)
        assert str(key) in repr(made)
    assert (AsyncResult(key).task_id, TaskSetResult(key).taskset_id) == (str(key), str(key))


@pytest.mark.parametrize("handle", [AsyncResult, TaskSetResult, TaskSetResult.restore])
@pytest.mark.parametrize("key", ["", "1", None, 5, "x" * 32])
def test_what_is_no_id_is_refused_at_once(handle: Any, key: Any) -> None:
    with pytest.raises(InvalidId, match="not an id"):
        handle(key)


def test_handles_are_stored_as_ids() -> None:
    one, many = AsyncResult(gen_unique_id()), TaskSetResult(gen_unique_id())
    listed = TaskSetResult(gen_unique_id(), [one])
    assert codec.decode(codec.encode([one, many])) == [one, many]
    again = codec.decode(codec.encode(listed))
    assert again == listed
    assert list(again.results) == [one]
    assert codec.decode(codec.handle("TaskSetResult", many.id)) == many
    assert codec.decode(codec.handle("AsyncResult", one.id)) == one


def test_results_without_rows_are_not_stored() -> None:
    with pytest.raises(NotStorable):
        codec.encode(add.apply((1, 1)))
    with pytest.raises(NotStorable):
        codec.encode(TaskSet(adds(1)).apply())


def test_unknown_ids_read_as_pending() -> None:
    one, many = AsyncResult(gen_unique_id()), TaskSetResult(gen_unique_id())
    for result in (one, many):
        assert (result.state, result.status, result.record) == ("PENDING", None, None)
        assert not result.ready()
        assert not result.successful()
        assert not result.failed()
    assert (one.result, one.info, one.traceback) == (None, None, None)
    assert many.waiting()
    assert (many.total, many.name, list(many.results), many.callbacks) == (0, "", [], {})
    assert (many.completed_count(), many.finished_count()) == (0, 0)
    assert TaskSetResult.restore(many.id) is None
    with pytest.raises(UnknownId):
        many.progress()
    with pytest.raises(UnknownId):
        many.save()
    with pytest.raises(IndexError):
        many[0]


@pytest.mark.parametrize(
    ("status", "retries", "state"),
    [
        ("WAITING", 0, "PENDING"),
        ("READY", 0, "PENDING"),
        ("SCHEDULED", 0, "PENDING"),
        ("SCHEDULED", 1, "RETRY"),
        ("RUNNING", 0, "STARTED"),
        ("SUCCESSFUL", 1, "SUCCESS"),
        ("FAILED", 0, "FAILURE"),
        ("REVOKED", 0, "REVOKED"),
    ],
)
def test_states_are_celerys_words(status: str, retries: int, state: str) -> None:
    record = SubtaskRecord.objects.create(task_name="t", status=status, retries=retries)
    result = AsyncResult(record.id)
    assert (result.status, result.state) == (status, state)
    assert isinstance(result.status, SubtaskStatus)
    assert result.ready() == (state in ("SUCCESS", "FAILURE", "REVOKED"))


# One subtask


def test_get_gives_the_return_value() -> None:
    sent = echo.delay(1, x={"when": timedelta(1)})
    run_subtasks()
    assert (
        sent.get()
        == sent.wait()
        == sent.result
        == sent.info
        == [[1], {"x": {"when": timedelta(1)}}]
    )
    assert sent.successful()
    assert sent.traceback is None


def test_get_is_one_query(django_assert_num_queries: Queries) -> None:
    sent = add.delay(1, 2)
    run_subtasks()
    with django_assert_num_queries(1):
        assert sent.get() == 3


def failing(which: str) -> Any:
    sent = raise_one_of_many.delay(which)
    run_subtasks()
    assert sent.failed()
    return sent.get(propagate=False)


def test_a_failure_is_raised_as_the_tasks_own_exception() -> None:
    sent = fail.delay("really")
    run_subtasks()
    with pytest.raises(ValueError, match="really") as caught:
        sent.get()
    error: Any = caught.value
    assert error.args == ("really",)
    assert "in fail" in error.remote_traceback
    assert error.remote_traceback in error.__notes__[0]
    assert sent.traceback == error.remote_traceback
    assert isinstance(sent.result, ValueError)


def test_its_init_is_not_called() -> None:
    error = failing("demanding")
    assert type(error) is Demanding
    assert error.args == (5,)
    assert not hasattr(error, "detail")


def test_classes_in_classes_are_found() -> None:
    assert type(failing("nested")) is Nested.Error
    assert failing("nested").args == ("x", 1)


def test_builtin_errors_know_what_their_arguments_mean() -> None:
    error = failing("os")
    assert type(error) is FileNotFoundError
    assert (error.errno, error.filename) == (2, "x.txt")
    error = failing("unicode")
    assert (error.reason, error.object) == ("invalid start byte", b"\xff")
    assert "no such word (x.py, line 3)" in str(failing("syntax"))


@pytest.mark.parametrize("which", ["unprintable", "unstorable", "stop", "exit", "local"])
def test_what_cannot_be_made_again_is_a_subtask_failed(which: str) -> None:
    error = failing(which)
    assert type(error) is SubtaskFailed
    original = RAISED[which]()
    assert error.exception_class.endswith(type(original).__qualname__)
    assert error.exception_class in str(error)
    assert "Traceback" in error.remote_traceback


def test_nothing_is_imported_to_raise_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = types.ModuleType("lazy")
    lazy.__dict__["__getattr__"] = lambda name: pytest.fail("imported")
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    for path in ("lazy.Error", "xml.dom.expatbuilder.nothing.Error", "Error", ""):
        line = json.dumps({"exception_class": path, "args": "[]", "message": "m"})
        record = SubtaskRecord.objects.create(task_name="t", status="FAILED", errors=line + "\n")
        error = AsyncResult(record.id).result
        assert type(error) is SubtaskFailed
        assert error.exception_class == path


def test_the_last_error_counts() -> None:
    lines = [json.dumps({"exception_class": "E", "message": text}) for text in ("first", "last")]
    record = SubtaskRecord.objects.create(
        task_name="t", status="FAILED", errors="".join(f"{line}\n" for line in lines)
    )
    assert "last" in str(AsyncResult(record.id).result)


def test_a_failure_without_an_exception_says_its_reason() -> None:
    record = SubtaskRecord.objects.create(task_name="t", status="FAILED", reason="SIGKILL")
    with pytest.raises(SubtaskFailed, match="SIGKILL"):
        AsyncResult(record.id).get()


def test_a_value_that_cannot_be_read_is_an_error_in_its_place() -> None:
    result = TaskSet(adds(2)).apply_async()
    run_subtasks()
    SubtaskRecord.objects.filter(pk=result[0].id).update(return_value='{"$":"Gone","value":1}')
    with pytest.raises(UnreadableValue, match="Gone"):
        result.join()
    unread, two = result.join(propagate=False)
    assert isinstance(unread, UnreadableValue)
    assert two == 2


def test_a_revoked_one_says_so() -> None:
    sent = add.delay(1, 1)
    sent.revoke()
    assert (sent.state, sent.ready(), sent.failed()) == ("REVOKED", True, False)
    with pytest.raises(SubtaskRevoked, match="revoked"):
        sent.get()
    assert isinstance(sent.get(propagate=False), SubtaskRevoked)
    with pytest.raises(InvalidOption, match="terminte"):
        sent.revoke(terminte=True)


def test_an_unknown_one_is_not_waited_for() -> None:
    with pytest.raises(UnknownId):
        AsyncResult(gen_unique_id()).get()
    with pytest.raises(ResultTimeout):
        AsyncResult(gen_unique_id()).get(timeout=0)


def test_forget_drops_it() -> None:
    sent = add.delay(1, 1)
    with pytest.raises(StillUnfinished):
        sent.forget()
    run_subtasks()
    sent.forget()
    assert sent.state == "PENDING"


def test_a_retry_is_seen_as_one() -> None:
    sent = retry_until.apply_async((1,), max_retries=1)
    run_subtasks(limit=1)
    sent_record = sent.record
    assert sent_record is not None
    assert sent_record.retries == 1
    run_subtasks(scheduled=True)
    assert sent.get() == 1


def test_eager_results_speak_the_same_words() -> None:
    for word in ("SUCCESS", "SUCCESSFUL"):
        assert EagerResult(gen_unique_id(), 5, word).state == "SUCCESS"
    result = EagerResult(gen_unique_id(), 5, "SUCCESS")
    assert (result.get(), result.ready(), result.traceback) == (5, True, None)
    result.revoke()
    result.forget()
    assert result.state == "REVOKED"


# Waiting


def test_nobody_waits_in_a_transaction() -> None:
    sent, many = add.delay(1, 1), TaskSet(adds(2)).apply_async()
    for wait in (sent.get, many.join, lambda: list(many)):
        with pytest.raises(WouldDeadlock, match="transaction"):
            wait()
    run_subtasks()
    assert (sent.get(), many.join()) == (2, [0, 2])


def test_nobody_waits_in_a_subtask() -> None:
    later = add.apply_async((1, 1), countdown=60)
    sent = wait_for.delay(later)
    run_subtasks()
    with pytest.raises(WouldDeadlock):
        sent.get()


@pytest.fixture
def worker(transactional_db: None) -> Iterator[Callable[[], None]]:
    """Starts a thread that executes what is enqueued, one subtask after the other."""
    threads = []

    def work() -> None:
        try:
            while run_subtasks(limit=1):
                pass
        finally:
            connections.close_all()

    def start() -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()


def test_get_waits(worker: Callable[[], None]) -> None:
    sent = add.delay(1, 2)
    with pytest.raises(ResultTimeout):
        sent.get(timeout=0.01)
    worker()
    assert sent.get(timeout=30) == 3


def test_join_and_iterate_wait(worker: Callable[[], None]) -> None:
    result = TaskSet(adds(20)).apply_async()
    with pytest.raises(ResultTimeout):
        result.join(timeout=0.01)
    worker()
    assert sorted(result.iterate(timeout=30)) == [2 * i for i in range(20)]
    assert result.join(timeout=30) == [2 * i for i in range(20)]


def test_coroutines_wait_too(worker: Callable[[], None]) -> None:
    sent, result = aadd.delay(1, 2), TaskSet(adds(20)).apply_async()

    async def wait() -> list[Any]:
        each = [value async for value in result.aiterate(timeout=30)]
        every = [value async for value in result]
        return [await sent.aget(timeout=30), await result.ajoin(timeout=30), each, every]

    worker()
    value, joined, each, every = async_to_sync(wait)()
    assert value == 3
    assert joined == sorted(each) == sorted(every) == [2 * i for i in range(20)]


# A set


def test_what_a_set_tells_is_one_query(django_assert_num_queries: Queries) -> None:
    result = TaskSet([*adds(3), fail.subtask()], on_finish=noop.subtask()).apply_async()
    run_subtasks()
    for tell in (
        result.progress,
        result.ready,
        result.waiting,
        result.successful,
        result.failed,
        result.completed_count,
        result.finished_count,
        lambda: result.total,
        lambda: result.status,
        lambda: result.record,
        lambda: result.callbacks,
        lambda: TaskSetResult.restore(result.id),
    ):
        with django_assert_num_queries(1):
            tell()


def test_the_counts_are_told_apart() -> None:
    result = TaskSet([*adds(2), fail.subtask(), *adds(2)]).apply_async()
    run_subtasks(limit=4)
    result.revoke()
    progress = result.progress()
    assert (progress.total, progress.remaining) == (5, 0)
    assert (progress.successful, progress.failed, progress.revoked) == (3, 1, 1)
    assert (result.completed_count(), result.finished_count()) == (3, 5)
    assert (progress.percent, progress.is_finished, result.status) == (100, True, "FAILED")
    assert result.state == "FAILURE"


def test_progress_says_what_the_set_is_about_to_do() -> None:
    with TaskSet(adds(2)).open() as result:
        assert result.progress().is_open
    sets = TaskSetRecord.objects.filter(pk=result.id)
    sets.update(paused_at=timezone.now(), revoke_requested_at=timezone.now())
    progress = result.progress()
    assert (progress.is_open, progress.is_paused, progress.is_revoking) == (False, True, True)
    saved = TaskSetResult(gen_unique_id(), [])
    saved.save()
    assert not TaskSetResult(saved.id).progress().is_open


def test_members_are_a_sequence() -> None:
    result = TaskSet(adds(5), on_finish=noop.subtask()).apply_async()
    run_subtasks()
    members = result.results
    assert len(members) == 5
    assert [member.get() for member in members] == [0, 2, 4, 6, 8]
    assert result[1].get() == members[-4].get() == 2
    assert [member.get() for member in members[1:4]] == [2, 4, 6]
    assert [member.get() for member in members[::-2]] == [8, 4, 0]
    assert members[5:] == []
    assert list(result.itersubtasks()) == list(result.subtasks) == list(members)
    assert members[2] in members
    for index in (5, -6):
        with pytest.raises(IndexError):
            members[index]


def test_members_are_read_as_they_are_needed(django_assert_max_num_queries: Queries) -> None:
    result = TaskSet(noop.subtask() for _ in range(2500)).apply_async()
    with django_assert_max_num_queries(1):
        result[1200]
    with django_assert_max_num_queries(1):
        next(iter(result.results))
    with django_assert_max_num_queries(3):
        assert len({member.id for member in result.results}) == 2500


def test_members_are_read_by_coroutines_too() -> None:
    result = TaskSet(adds(3)).apply_async()

    async def read() -> list[Any]:
        return [await result.results.aget(1), [member async for member in result.results]]

    one, all_of_them = async_to_sync(read)()
    assert one == result[1]
    assert all_of_them == list(result.results)


def test_join_keeps_the_order_over_many_chunks() -> None:
    result = TaskSet(
        add.subtask((i, 0), options={"priority": i % 7}) for i in range(350)
    ).apply_async()
    run_subtasks()
    assert result.join() == list(range(350))
    assert sorted(result.iterate()) == list(range(350))


def test_join_raises_the_failure_and_not_what_it_brought_about() -> None:
    result = TaskSet([*adds(2), fail.subtask(("first",)), *adds(2)]).apply_async()
    run_subtasks(limit=3)
    with pytest.raises(ValueError, match="first"):
        result.join()
    result.revoke()
    with pytest.raises(ValueError, match="first"):
        result.join()
    values = result.join(propagate=False)
    assert values[:2] == [0, 2]
    assert [type(value) for value in values[2:]] == [ValueError, SubtaskRevoked, SubtaskRevoked]


def test_iterate_delivers_what_there_is_before_a_failure() -> None:
    result = TaskSet([*adds(2), fail.subtask()]).apply_async()
    run_subtasks()
    each = iter(result)
    assert [next(each), next(each)] == [0, 2]
    with pytest.raises(ValueError, match="on purpose"):
        next(each)


def test_an_unknown_set_is_not_waited_for() -> None:
    result = TaskSetResult(gen_unique_id())
    for wait in (result.join, lambda: list(result)):
        with pytest.raises(UnknownId):
            wait()
    with pytest.raises(ResultTimeout):
        result.join(timeout=0)


def test_forget_keeps_the_counts_and_delete_does_not() -> None:
    result = TaskSet(adds(2), on_finish=noop.subtask()).apply_async()
    run_subtasks(limit=2)
    for drop in (result.forget, result.delete):
        with pytest.raises(StillUnfinished):
            drop()
    run_subtasks()
    result.forget()
    assert result.completed_count() == 2
    result.delete()
    result.delete()
    assert result.status is None
    assert not SubtaskRecord.objects.exists()


def test_callbacks_are_those_of_the_newest_generation() -> None:
    result = TaskSet(adds(1), on_success=total.subtask(), on_finish=noop.subtask()).apply_async()
    first = result.callbacks
    assert list(first) == ["on_success", "on_finish"]
    again = SubtaskRecord.objects.create(
        taskset_id=result.id, role="ON_SUCCESS", position=-6, generation=2, task_name="t"
    )
    assert result.callbacks == {"on_success": AsyncResult(again.id)}


# A list of subtasks


def listed(count: int) -> tuple[TaskSetResult, list[subtask]]:
    keys = [gen_unique_id() for _ in range(count)]
    calls = [add.subtask((i, i), options={"task_id": key}) for i, key in enumerate(keys)]
    return TaskSetResult(gen_unique_id(), keys), calls


def test_a_list_is_read_in_one_query_row_or_no_row(django_assert_num_queries: Queries) -> None:
    result, calls = listed(3)
    calls[1].apply_async()
    for tell in (result.progress, result.ready, result.completed_count, result.failed):
        with django_assert_num_queries(1):
            tell()
    run_subtasks()
    assert result.completed_count() == 1
    assert [member.state for member in result.results] == ["PENDING", "SUCCESS", "PENDING"]
    assert not result.ready()
    calls[0].apply_async()
    calls[2].apply_async()
    run_subtasks()
    assert result.successful()
    assert result.join() == [0, 2, 4]
    assert sorted(result) == [0, 2, 4]
    assert [member.get() for member in result[1:]] == [2, 4]


def test_a_list_that_is_nowhere_is_not_waited_for() -> None:
    result, _ = listed(2)
    with pytest.raises(UnknownId):
        result.join()
    result.save()
    with pytest.raises(WouldDeadlock):
        result.join()


def test_a_saved_set_is_restored_with_its_ids() -> None:
    result, calls = listed(3)
    result.save()
    restored = TaskSetResult.restore(result.id)
    assert restored == result
    assert restored is not None
    assert (restored.status, restored.state) == ("SAVED", "PENDING")
    assert restored.total == 3
    assert list(restored.results) == list(result.results)
    assert restored[-1] == result[2]
    assert not restored.ready()
    assert not result.ready()
    assert not run_subtasks()
    TaskSet(calls).apply_async(taskset_id=result.id)
    run_subtasks()
    assert restored.join() == result.join() == [0, 2, 4]


def test_a_list_without_a_set_is_revoked_and_forgotten_by_its_ids() -> None:
    result, calls = listed(2)
    for call in calls:
        call.apply_async()
    assert result.revoke() == 2
    assert result.progress().revoked == 2
    with pytest.raises(SubtaskRevoked):
        result.join()
    result.forget()
    assert not SubtaskRecord.objects.exists()


def test_a_listed_set_is_revoked_as_a_set() -> None:
    result, calls = listed(2)
    TaskSet(calls).apply_async(taskset_id=result.id)
    assert result.revoke(reason="enough") == 2
    record = result.record
    assert record is not None
    assert (record.status, record.revoke_reason) == ("REVOKED", "enough")


# Async twins


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (Task, "delay apply_async apply"),
        (subtask, "delay apply_async apply"),
        (TaskSet, "apply_async apply"),
        (
            AsyncResult,
            "record status state result traceback get ready successful failed revoke forget",
        ),
        (
            TaskSetResult,
            (
                "record status state total callbacks progress ready waiting successful failed "
                "completed_count finished_count join add revoke forget delete save restore"
            ),
        ),
    ],
)
def test_what_reads_or_writes_has_an_async_twin(cls: type, names: str) -> None:
    for name in names.split():
        twin = getattr(cls, f"a{name}")
        assert inspect.iscoroutinefunction(twin)
        assert twin.__name__ == f"a{name}"
        assert (twin.__doc__ or "").startswith(f"See {name}")


def test_twins_do_what_they_are_twins_of() -> None:
    async def use() -> None:
        sent = await add.adelay(1, 2)
        assert await sent.astate() == "PENDING"
        assert await sent.astatus() == "READY"
        assert (await sent.arecord()) is not None
        assert not await sent.aready()
        await sent.arevoke()
        assert isinstance(await sent.aresult(), SubtaskRevoked)
        assert await sent.atraceback() is None
        assert not await sent.asuccessful()
        assert not await sent.afailed()
        await sent.aforget()
        assert await (await subtask("tests.tasks.add", (1,)).adelay(4)).astatus() == "READY"
        assert (await add.aapply((1, 2))).get() == 3
        result = await TaskSet(adds(2), on_finish=noop.subtask()).aapply_async()
        assert (await result.aprogress()).total == await result.atotal() == 2
        assert await result.acompleted_count() == await result.afinished_count() == 0
        assert await result.arevoke() == 2
        assert await result.astatus() == "REVOKED"
        assert await result.astate() == "REVOKED"
        await (await result.acallbacks())["on_finish"].arevoke()
        assert (await result.arecord()) is not None
        assert await TaskSetResult.arestore(result.id) == result
        await result.aforget()
        await result.adelete()
        assert await TaskSetResult.arestore(result.id) is None
        await TaskSetResult(result.id, [sent]).asave()

    async_to_sync(use)()


def test_a_twin_calls_what_a_subclass_made_of_the_method() -> None:
    async def use() -> bool:
        return await EagerResult(gen_unique_id(), 1, "SUCCESS").aready()

    assert async_to_sync(use)()
