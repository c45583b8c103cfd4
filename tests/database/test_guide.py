"""Every call that Celery 2's guide "Sets of tasks, Subtasks and Callbacks" makes, in its order."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.utils.functional import cached_property
from redis import Redis

import django_tasksets as current_app
from django_tasksets import (
    AsyncResult,
    Task,
    TaskSet,
    TaskSetResult,
    gen_unique_id,
    registry,
    subtask,
    task,
)
from django_tasksets.testing import run_subtasks
from tests import services
from tests.tasks import add, fail

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def arrived() -> list[Any]:
    """What the last task of a chain was called with."""
    ARRIVED.clear()
    return ARRIVED


ARRIVED: list[Any] = []


@task
def arrive(value: Any, *more: Any) -> Any:
    ARRIVED.append(value)
    return value


# Subtasks


def test_a_subtask_wraps_a_task_arguments_and_options() -> None:
    positional = subtask("tests.tasks.add", (2, 2), {}, {"countdown": 0})
    by_class = subtask(type(add), (2, 2), {}, {"countdown": 0})
    shortcut = add.subtask((2, 2), {}, {"countdown": 0})
    assert positional == by_class == shortcut


def test_a_dict_is_coerced_into_a_subtask() -> None:
    s = subtask("tests.tasks.add", args=(2, 2), kwargs={})
    assert subtask(dict(s)) == s
    assert subtask(json.loads(json.dumps(s))) == s
    assert isinstance(subtask(dict(s)), subtask)


# Callbacks


def test_a_task_calls_the_subtask_that_it_was_given(arrived: list[Any]) -> None:
    sent = add.delay(2, 2, callback=add.subtask((8,), {"callback": arrive.subtask()}))
    assert isinstance(sent, AsyncResult)
    assert run_subtasks() == 3
    assert sent.get() == 4
    assert arrived == [12]


def test_added_arguments_are_prepended() -> None:
    direct = add.apply_async(args=(5, 10))
    through = add.subtask(args=(10,)).delay(5)
    assert [r.record.get_args() for r in (direct, through) if r.record] == [[5, 10]] * 2
    run_subtasks()
    assert direct.get() == through.get() == 15


def test_a_subtask_is_applied_eagerly_too() -> None:
    assert add.subtask((10,)).apply((5,)).get() == 15


# Task sets


def test_a_task_set_joins_its_results_in_order() -> None:
    job = TaskSet(
        tasks=[
            add.subtask((4, 4)),
            add.subtask((8, 8)),
            add.subtask((16, 16)),
            add.subtask((32, 32)),
        ]
    )
    result = job.apply_async()
    assert isinstance(result, TaskSetResult)
    assert not result.ready()
    assert not result.successful()
    run_subtasks()
    assert result.ready()
    assert result.successful()
    assert result.join() == [8, 16, 32, 64]


# Results


def test_a_result_of_a_set_works_on_all_of_its_subtasks() -> None:
    result = TaskSet([add.subtask((1, 1)), fail.subtask(), add.subtask((2, 2))]).apply_async()
    assert result.waiting()
    assert result.completed_count() == 0
    assert run_subtasks(limit=1) == 1
    assert result.completed_count() == 1
    run_subtasks()
    assert not result.waiting()
    assert result.failed()
    assert not result.successful()
    assert result.completed_count() == 2
    assert result.finished_count() == 3
    with pytest.raises(ValueError, match="on purpose"):
        result.join()


def test_iterate_gives_what_is_there() -> None:
    result = TaskSet(add.subtask((i, i)) for i in range(5)).apply_async()
    run_subtasks()
    assert sorted(result.iterate()) == sorted(result) == [0, 2, 4, 6, 8]


def test_revoke_revokes_all() -> None:
    result = TaskSet(add.subtask((i, i)) for i in range(5)).apply_async()
    run_subtasks(limit=2)
    assert result.revoke() == 3
    assert run_subtasks() == 0
    assert result.ready()
    assert not result.failed()
    assert [r.state for r in result.results] == ["SUCCESS"] * 2 + ["REVOKED"] * 3


def test_a_result_takes_a_list_of_results() -> None:
    sent = [add.delay(i, i) for i in range(3)]
    result = TaskSetResult(gen_unique_id(), sent)
    assert (result.total, result.waiting()) == (3, True)
    run_subtasks()
    assert result.successful()
    assert result.join() == [0, 2, 4]


# Task set callbacks: the task that polls


@task
def join_taskset(
    setid: str,
    subtasks: list[Any],
    callback: Any,
    interval: float = 15,
    max_retries: int | None = None,
) -> None:
    result = TaskSetResult(setid, subtasks)
    if result.ready():
        subtask(callback).delay(result.join())
        return
    join_taskset.retry(countdown=interval, max_retries=max_retries)


@pytest.mark.parametrize("as_ids", [False, True])
def test_the_polling_callback(as_ids: bool, arrived: list[Any]) -> None:
    poll = AsyncResult(gen_unique_id())
    numbers = TaskSet([add.subtask((i, i), {}, {"countdown": 60}) for i in range(4)]).apply_async()
    handles = [r.id if as_ids else r for r in numbers.results]
    join_taskset.apply_async(
        (numbers.id, handles, arrive.subtask()), {"interval": 30}, task_id=poll.id
    )
    assert run_subtasks() == 1
    assert poll.state == "RETRY"
    run_subtasks(scheduled=True)
    assert poll.successful()
    assert arrived == [[0, 2, 4, 6]]


def test_the_polling_callback_gives_up() -> None:
    waiting = [AsyncResult(gen_unique_id())]
    poll = join_taskset.delay(gen_unique_id(), waiting, arrive.subtask(), 0, max_retries=2)
    run_subtasks(scheduled=True)
    assert poll.failed()
    with pytest.raises(current_app.MaxRetriesExceeded):
        poll.get()


# Task set callbacks: Redis and atomic counters


class supports_taskset_callback(Task):  # noqa: N801  the guide's name
    abstract = True
    accept_magic_kwargs = False

    def after_return(self, *args: Any, **kwargs: Any) -> None:
        if self.request.taskset:
            callback = self.request.kwargs.get("callback")
            if callback:
                setid = self.request.taskset
                result = TaskSetResult.restore(setid)
                assert result is not None
                current = self.redis.incr("taskset-" + setid)
                if current >= result.total:
                    subtask(callback).delay(result.join())

    @cached_property
    def redis(self) -> Any:
        where = urlsplit(services.REDIS_URL)
        return Redis(host=where.hostname or "localhost", port=where.port or 6379)


@task(base=supports_taskset_callback)
def counted_add(x: int, y: int, **kwargs: Any) -> int:
    return x + y


def apply_presaved_taskset(tasks: Any) -> TaskSetResult:
    pairs = []
    setid = gen_unique_id()
    for each in tasks:
        uuid = gen_unique_id()
        each.options["task_id"] = uuid
        pairs.append((each, current_app.AsyncResult(uuid)))
    saved = current_app.TaskSetResult(setid, [result for _, result in pairs])
    saved.save()
    return TaskSet(each for each, _ in pairs).apply_async(taskset_id=setid)


@pytest.mark.usefixtures("requires_redis")
def test_the_redis_callback(arrived: list[Any]) -> None:
    result = apply_presaved_taskset(
        counted_add.subtask((i, i), {"callback": arrive.subtask()}) for i in range(100)
    )
    try:
        run_subtasks()
        assert arrived == [[2 * i for i in range(100)]]
        assert result.join() == arrived[0]
    finally:
        connection: Any = registry.get(counted_add.name)
        connection.redis.delete("taskset-" + result.taskset_id)
        connection.redis.close()
        del connection.redis
