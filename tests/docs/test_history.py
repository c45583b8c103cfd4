"""The two recipes of 2011, as docs/topics/history.md tells them, still run; so do their flaws."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from django_tasksets import TaskSet, task
from django_tasksets.announcing import run_hooks
from django_tasksets.execution import Worker, execute
from django_tasksets.ids import new_id
from django_tasksets.maintenance import register
from django_tasksets.recording import record
from django_tasksets.store import get_store
from django_tasksets.testing import run_subtasks
from tests.docs.pages import Page
from tests.tasks import add

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("requires_redis")]

ARRIVED: list[Any] = []


@task
def arrive(results: Any) -> None:
    """The callback."""
    ARRIVED.append(results)


@pytest.fixture
def recipes(
    apart: None, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> Iterator[SimpleNamespace]:
    """The names of the page's blocks."""
    # The page's `redis.Redis()` is where the tests' Redis is.
    connection = redis.Redis.from_url(redis_url)
    monkeypatch.setattr(redis, "Redis", lambda: connection)
    ARRIVED.clear()
    names: dict[str, Any] = {}
    Page("docs/topics/history.md").run(names)
    yield SimpleNamespace(connection=connection, **names)
    connection.close()


# A task that asks again and again


def test_the_polling_recipe_calls_back_with_the_results(recipes: SimpleNamespace) -> None:
    result = TaskSet(add.subtask((i, i)) for i in range(4)).apply_async()
    recipes.join_taskset.delay(result.id, list(result.results), arrive.subtask())
    run_subtasks(scheduled=True)
    assert ARRIVED == [[0, 2, 4, 6]]


def test_the_polling_recipe_looks_again_later(recipes: SimpleNamespace) -> None:
    late = add.subtask((1, 1), options={"countdown": 60})
    result = TaskSet([late]).apply_async()
    poll = recipes.join_taskset.delay(result.id, list(result.results), arrive.subtask())
    run_subtasks()
    assert poll.state == "RETRY"
    assert ARRIVED == []
    run_subtasks(scheduled=True)
    assert ARRIVED == [[2]]


def test_the_polling_recipe_never_calls_back_after_a_failure(recipes: SimpleNamespace) -> None:
    result = TaskSet([add.subtask((1, 1)), add.subtask(("a", 1))]).apply_async()
    poll = recipes.join_taskset.delay(result.id, list(result.results), arrive.subtask())
    run_subtasks(scheduled=True)
    assert poll.failed()
    assert ARRIVED == []


# A counter in Redis


@pytest.fixture
def counted(recipes: SimpleNamespace) -> Iterator[Any]:
    """A task that counts itself, as the recipe has it."""

    @task(base=recipes.SupportsCallback, bind=True, default_retry_delay=0)
    def counted(self: Any, number: int, *, retries: int = 0, callback: Any) -> int:
        if self.request.retries < retries:
            self.retry()
        return number

    yield counted
    for key in recipes.connection.scan_iter("taskset-*"):
        recipes.connection.delete(key)


def members(counted: Any, *retries: int) -> list[Any]:
    callback = arrive.subtask()
    return [
        counted.subtask((i,), {"retries": n, "callback": callback}) for i, n in enumerate(retries)
    ]


def test_the_counting_recipe_calls_back_with_the_results(counted: Any) -> None:
    TaskSet(members(counted, 0, 0, 0)).apply_async()
    run_subtasks()
    assert ARRIVED == [[0, 1, 2]]


def test_the_counting_recipe_waits_inside_a_worker_after_a_retry(
    counted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    TaskSet(members(counted, 1, 0)).apply_async()
    run_subtasks(limit=2)
    assert "WouldDeadlock" in caplog.text
    assert ARRIVED == []


def test_the_counting_recipe_calls_back_twice_after_a_retry(counted: Any) -> None:
    TaskSet(members(counted, 1, 0)).apply_async()
    run_subtasks(limit=1)
    run_together()
    run_subtasks()
    assert ARRIVED == [[0, 1], [0, 1]]


def run_together() -> None:
    """Execute what is there as a worker does that records it all in one batch."""
    store = get_store()
    worker = Worker(store=store, id=new_id())
    register(store, worker.id, queues=(), pid=1)
    outcomes = [execute(worker, claimed) for claimed in store.claim(worker.id, (), 10)]
    for written in record(store, worker.id, outcomes).written:
        run_hooks(written)


def test_the_counting_recipe_never_calls_back_after_a_revocation(
    counted: Any, recipes: SimpleNamespace
) -> None:
    result = TaskSet(members(counted, 0, 0, 0)).apply_async()
    result[1].revoke()
    run_subtasks()
    assert result.ready()
    assert int(recipes.connection.get(f"taskset-{result.id}")) == 2
    assert ARRIVED == []
