"""What a subtask costs, counted and not timed: so that it shows on any machine if it grows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from django_tasksets import TaskSet
from django_tasksets.execution import Worker, execute
from django_tasksets.ids import new_id
from django_tasksets.maintenance import register
from django_tasksets.recording import record
from django_tasksets.store import get_store
from django_tasksets.store.contract import Claimed
from tests.tasks import add

pytestmark = pytest.mark.django_db(transaction=True)

# Of Python's own functions, ours and Django's, that are called to execute one. The C functions and
# the bytecode between them are about three times as many.
CALLS_TO_EXECUTE = 27
CALLS_TO_ENQUEUE = 38
CALLS_TO_RECORD = 20
# Of a single call, and of a look at its result.
CALLS_TO_DELAY = 200
CALLS_TO_LOOK = 155


def statements(work: Callable[[], object]) -> int:
    """How many statements `work` executes; one for many rows is one. COPY is none."""
    count = 0

    def note(run: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal count
        count += 1
        return run(*arguments)

    with connection.execute_wrapper(note):
        work()
    return count


def calls(work: Callable[[], object]) -> int:
    """How many Python functions `work` calls."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def apply(count: int) -> None:
    TaskSet(add.subtask((n, n)) for n in range(count)).apply_async()


def claimed(worker: Worker, count: int) -> list[Claimed]:
    apply(count)
    return worker.store.claim(worker.id, [], count)


@pytest.fixture
def worker() -> Worker:
    store = get_store()
    worker_id = new_id()
    register(store, worker_id, queues=[], pid=0)
    return Worker(store=store, id=worker_id)


def test_a_call_is_enqueued_by_one_statement() -> None:
    apply(1)

    # NOTIFY is the other one.
    assert statements(lambda: add.delay(1, 2)) <= (2 if connection.vendor == "postgresql" else 1)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="elsewhere it is a transaction")
def test_a_small_set_is_enqueued_by_one_statement() -> None:
    apply(1)

    assert statements(lambda: apply(10)) == 2  # With NOTIFY.


def test_a_set_is_enqueued_by_a_few_statements() -> None:
    apply(1)

    few, many = statements(lambda: apply(10)), statements(lambda: apply(3000))

    assert few <= 5
    # SQLite and MariaDB take a thousand rows at a time.
    assert many <= few + 2


def test_a_claim_is_a_few_statements(worker: Worker) -> None:
    apply(500)

    few = statements(lambda: worker.store.claim(worker.id, [], 10))
    many = statements(lambda: worker.store.claim(worker.id, [], 400))

    assert many <= few <= 6


def test_a_batch_of_results_is_a_few_statements(worker: Worker) -> None:
    outcomes = [execute(worker, row) for row in claimed(worker, 400)]

    few = statements(lambda: record(worker.store, worker.id, outcomes[:10]))
    many = statements(lambda: record(worker.store, worker.id, outcomes[10:300]))

    assert many <= few <= 6


def test_the_results_of_many_sets_are_no_more_statements(worker: Worker) -> None:
    for _ in range(40):
        apply(5)
    outcomes = [execute(worker, row) for row in worker.store.claim(worker.id, [], 200)]

    ended = statements(lambda: record(worker.store, worker.id, outcomes))

    assert ended <= 6


def test_enqueueing_takes_no_more_python_than_it_did() -> None:
    apply(1)

    few, many = calls(lambda: apply(10)), calls(lambda: apply(1010))

    assert (many - few) / 1000 <= CALLS_TO_ENQUEUE


@pytest.mark.skipif(connection.vendor == "mysql", reason="hints go over Redis, by code of its own")
def test_a_single_call_takes_no_more_python_than_it_did() -> None:
    add.delay(1, 2)

    assert calls(lambda: add.delay(1, 2)) <= CALLS_TO_DELAY


def test_a_look_takes_no_more_python_than_it_did() -> None:
    result = add.delay(1, 2)
    result.ready()

    assert statements(result.ready) == 1
    assert calls(result.ready) <= CALLS_TO_LOOK


def test_executing_takes_no_more_python_than_it_did(worker: Worker) -> None:
    rows = claimed(worker, 101)
    execute(worker, rows.pop())

    assert calls(lambda: [execute(worker, row) for row in rows]) / 100 <= CALLS_TO_EXECUTE


def test_recording_takes_no_more_python_than_it_did(worker: Worker) -> None:
    outcomes = [execute(worker, row) for row in claimed(worker, 620)]

    few = calls(lambda: record(worker.store, worker.id, outcomes[:10]))
    many = calls(lambda: record(worker.store, worker.id, outcomes[10:520]))

    assert (many - few) / 500 <= CALLS_TO_RECORD
