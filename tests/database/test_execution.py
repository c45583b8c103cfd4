"""Preparing what is claimed, and what the threads of a worker do about a database."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import (
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.test import override_settings
from django.utils import timezone

from django_tasksets import Task, TaskSetResult, registry, task
from django_tasksets.atomically import execute_atomically
from django_tasksets.attempts import Attempt, invoke
from django_tasksets.context import current_request
from django_tasksets.execution import Execution, Worker, execute, prepare
from django_tasksets.recording import Recorded, record
from django_tasksets.statuses import Role
from django_tasksets.store import get_store
from django_tasksets.store.contract import Claimed, Outcome, Store
from django_tasksets.worker import limits
from django_tasksets.worker.connections import clean_up, dedicated
from django_tasksets.worker.limits import Threads
from django_tasksets.worker.threads import Bookkeeper
from tests import flow, tasks

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def store() -> Store:
    return get_store()


@pytest.fixture
def worker(store: Store) -> Worker:
    return Worker(store=store, id=flow.new_worker(store))


def claim(worker: Worker, *ids: uuid.UUID) -> list[Claimed]:
    return worker.store.claim_ids(worker.id, ids)


# Preparing


def test_what_has_expired_by_the_databases_clock_is_not_called(worker: Worker) -> None:
    past, future = timezone.now() - timedelta(hours=1), timezone.now() + timedelta(hours=1)
    late = flow.enqueue(worker.store, expires_at=past)
    soon = flow.enqueue(worker.store, expires_at=future)
    one, two = claim(worker, *late, *soon)
    outcome = prepare(worker, one)
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.reason) == ("REVOKED", "expired")
    assert isinstance(prepare(worker, two), Execution)


def test_on_success_is_given_the_results_and_the_others_the_set(worker: Worker) -> None:
    taskset = flow.make_set(worker.store, 3, callbacks=flow.CALLBACKS)
    members = flow.claim_members(worker.store, worker.id, taskset)
    outcomes = [flow.outcome(one, return_value=str(number)) for number, one in enumerate(members)]
    record(worker.store, worker.id, outcomes)
    callbacks = taskset.subtasks.filter(position__lt=0)
    callbacks.update(status="READY", args='["own"]')
    claimed = {one.role: one for one in claim(worker, *callbacks.values_list("id", flat=True))}

    prepared = prepare(worker, claimed[Role.ON_SUCCESS])
    assert isinstance(prepared, Execution)
    assert list(prepared.args) == [[0, 1, 2], "own"]
    for role in (Role.ON_FAILURE, Role.ON_FINISH):
        prepared = prepare(worker, claimed[role])
        assert isinstance(prepared, Execution)
        assert list(prepared.args) == [TaskSetResult(taskset.id), "own"]
        assert prepared.request.taskset is None

    immutable = claimed[Role.ON_SUCCESS]._replace(options='{"immutable":true}')
    prepared = prepare(worker, immutable)
    assert isinstance(prepared, Execution)
    assert list(prepared.args) == ["own"]


# Atomic tasks


@pytest.fixture
def atomic_task() -> Iterator[Callable[[str], Any]]:
    @task(name="t.atomic", atomic=True)
    def write(how: str) -> str:
        Group.objects.create(name=how)
        if how == "fail":
            raise ValueError(how)
        if how == "break":
            with connection.cursor() as cursor:
                cursor.execute("SELECT nothing FROM nowhere")
        return how

    yield write
    registry.unregister("t.atomic")


def call(execution: Execution) -> Attempt:
    return invoke(execution.task, execution.request, execution.args, execution.kwargs)


def atomically(worker: Worker, how: str) -> tuple[Claimed, Outcome | Recorded]:
    ids = flow.enqueue(worker.store, task_name="t.atomic", args=f'["{how}"]')
    (claimed,) = claim(worker, *ids)
    prepared = prepare(worker, claimed)
    assert isinstance(prepared, Execution)
    return claimed, execute_atomically(worker, prepared, call)


def test_an_atomic_task_is_recorded_with_its_writes(worker: Worker, atomic_task: Any) -> None:
    claimed, recorded = atomically(worker, "good")
    assert isinstance(recorded, Recorded)
    assert flow.fetch(claimed.id).status == "SUCCESSFUL"
    assert Group.objects.filter(name="good").exists()


@pytest.mark.parametrize("how", ["fail", "break"])
def test_a_failed_one_leaves_no_writes_and_is_recorded_later(
    worker: Worker, atomic_task: Any, how: str
) -> None:
    claimed, outcome = atomically(worker, how)
    assert isinstance(outcome, Outcome)
    assert (outcome.status, flow.fetch(claimed.id).status) == ("FAILED", "RUNNING")
    assert not Group.objects.exists()


def test_one_whose_subtask_is_somebody_elses_leaves_no_writes(
    worker: Worker, atomic_task: Any
) -> None:
    ids = flow.enqueue(worker.store, task_name="t.atomic", args='["late"]')
    (claimed,) = claim(worker, *ids)
    prepared = prepare(worker, claimed._replace(claims=7))
    assert isinstance(prepared, Execution)
    recorded = execute_atomically(worker, prepared, call)
    assert isinstance(recorded, Recorded)
    assert (len(recorded.written), len(recorded.late)) == (0, 1)
    assert not Group.objects.exists()


def test_executed_inline_a_failed_one_leaves_no_writes_either(
    worker: Worker, atomic_task: Any
) -> None:
    for how, status in (("good", "SUCCESSFUL"), ("fail", "FAILED"), ("break", "FAILED")):
        ids = flow.enqueue(worker.store, task_name="t.atomic", args=f'["{how}"]')
        assert execute(worker, claim(worker, *ids)[0]).status == status
    assert [group.name for group in Group.objects.all()] == ["good"]


# Connections


def in_thread(function: Callable[[], Any]) -> Any:
    """What it returns in a thread of its own, which has connections of its own."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(function())
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return answers[0]


def test_a_transaction_that_was_left_open_is_rolled_back() -> None:
    def leave_open() -> bool:
        transaction.atomic().__enter__()
        Group.objects.create(name="in it")
        clean_up()
        return connection.in_atomic_block

    assert in_thread(leave_open) is False
    assert not Group.objects.exists()


def test_so_is_one_without_autocommit() -> None:
    def leave_off() -> bool:
        transaction.set_autocommit(False)
        Group.objects.create(name="in it")
        clean_up()
        Group.objects.create(name="after it")
        return connection.get_autocommit()

    assert in_thread(leave_off) is True
    assert [group.name for group in Group.objects.all()] == ["after it"]


def test_queries_are_not_kept_while_debugging() -> None:
    def query() -> int:
        for _ in range(5):
            Group.objects.exists()
            clean_up()
        return len(connection.queries_log)

    with override_settings(DEBUG=True):
        assert in_thread(query) == 0


def test_a_dedicated_connection_is_not_left_behind(store: Store) -> None:
    def look() -> list[Any]:
        with dedicated(store):
            ages = [connection.settings_dict["CONN_MAX_AGE"]]
        return [*ages, connection.settings_dict["CONN_MAX_AGE"]]

    assert in_thread(look) == [None, 0]


class Unsteady(Bookkeeper):
    """Fails at its first turns."""

    def __init__(self, store: Store, errors: list[Exception]) -> None:
        super().__init__(store, "unsteady")
        self.errors = errors
        self.connections: list[Any] = []

    def turn(self) -> float:
        self.connections.append(connection.connection)
        if self.errors:
            raise self.errors.pop(0)
        self.over = True
        return 0


def test_a_bookkeeper_outlives_errors_and_begins_anew(store: Store) -> None:
    unsteady = Unsteady(store, [OperationalError("away"), RuntimeError("ours")])
    in_thread(unsteady.run)
    assert len({id(one) for one in unsteady.connections}) == 3
    assert unsteady.since is None


# Limits


def test_the_soft_limit_is_raised_in_the_task_and_never_after_it(worker: Worker) -> None:
    @task(name="t.soft", soft_time_limit=0.001, bind=True)
    def brief(self: Task, seconds: float) -> str:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        return "done"

    threads, statuses = Threads(1, lambda *_: None), set()
    stop = threading.Event()

    def nag() -> None:
        while not stop.is_set():
            threads.look(time.monotonic())

    nagging = threading.Thread(target=nag)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # So that it nags at every moment of the execution.
    nagging.start()
    try:
        for number in range(300):
            ids = flow.enqueue(worker.store, task_name="t.soft", args=f"[{0.0008 + number / 1e6}]")
            prepared = prepare(worker, claim(worker, *ids)[0])
            assert isinstance(prepared, Execution)
            statuses.add(threads.call(prepared, 0, time.monotonic()).status)
    finally:
        stop.set()
        nagging.join()
        sys.setswitchinterval(interval)
        registry.unregister("t.soft")
    assert statuses == {"SUCCESSFUL", "FAILED"}
    assert current_request.get() is None


def test_a_limit_that_was_called_off_leaves_the_thread_to_profilers() -> None:
    limits._call_off(threading.get_ident())
    seen: list[str] = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, argument: seen.append(event))
    try:
        tasks.noop()
    finally:
        sys.setprofile(before)
    assert "call" in seen
