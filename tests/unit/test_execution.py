"""What calling a task comes to: judged without a database."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import OperationalError
from django.test import override_settings

from django_tasksets import MaxRetriesExceeded, Retry, Revoked, Task, codec, registry, task
from django_tasksets.attempts import Attempt, ainvoke, backoff, call_hooks, invoke
from django_tasksets.calls import Failure, RetryPlan
from django_tasksets.context import Request, current_request
from django_tasksets.execution import (
    TRIES,
    Execution,
    Worker,
    conclude,
    execute,
    give_back,
    prepare,
)
from django_tasksets.failures import describe, error_line
from django_tasksets.ids import new_id
from django_tasksets.statuses import Role
from django_tasksets.store import get_store
from django_tasksets.store.contract import Claimed, Outcome
from tests.claims import claimed


@pytest.fixture
def worker() -> Worker:
    return Worker(store=get_store(), id=new_id(), hostname="here")


@pytest.fixture(autouse=True)
def tasks_of_this_test() -> Any:
    before = set(registry.names())
    yield
    for name in set(registry.names()) - before:
        registry.unregister(name)


def run(worker: Worker, function: Callable[..., Any], **fields: Any) -> Outcome:
    """What executing a task made of this function comes to."""
    options = {key: fields.pop(key) for key in list(fields) if key not in Claimed._fields}
    made = task(name=f"t.{uuid.uuid4().hex}", **options)(function)
    return execute(worker, claimed(made.name, **fields))


def raises(error: BaseException) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> None:
        raise error

    return function


# Calling


def test_the_request_is_there_while_it_runs_and_gone_after(worker: Worker) -> None:
    seen: list[Request | None] = []

    @task(name="t.request", bind=True)
    def look(self: Task, *args: Any, **kwargs: Any) -> None:
        seen.extend([current_request.get(), self.request])

    row = claimed("t.request", args="[1]", kwargs='{"a":2}', attempts=1, crashes=1, retries=1)
    execute(worker, row)

    request = seen[0]
    assert request is seen[1]
    assert request is not None
    assert (request.id, request.args, request.kwargs) == (str(row.id), [1], {"a": 2})
    assert (request.attempt, request.retries, request.hostname) == (3, 1, "here")
    assert (request.worker_id, request.is_eager, request.revoked) == (worker.id, False, False)
    assert current_request.get() is None


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(1), GeneratorExit(), asyncio.CancelledError()]
)
def test_whatever_it_raises_is_its_failure(worker: Worker, error: BaseException) -> None:
    outcome = run(worker, raises(error))
    assert outcome.status == "FAILED"
    assert outcome.error_class.endswith(type(error).__name__)
    assert outcome.exception is error


def test_a_ctrl_c_is_not_the_tasks(worker: Worker) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(worker, raises(KeyboardInterrupt()))


def test_a_keyboard_interrupt_in_another_thread_is(worker: Worker) -> None:
    outcomes: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: outcomes.append(run(worker, raises(KeyboardInterrupt())))
    )
    thread.start()
    thread.join()
    assert outcomes[0].status == "FAILED"


def test_an_async_task_is_awaited_where_there_is_no_loop(worker: Worker) -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    assert run(worker, double, args="[4]").return_value == "8"


@pytest.mark.parametrize("error", [ValueError(), SystemExit(), KeyboardInterrupt()])
def test_awaiting_never_ends_the_loop(error: BaseException) -> None:
    async def function() -> None:
        raise error

    made = task(name="t.aexit")(function)
    attempt = asyncio.run(ainvoke(made, Request(task=made.name), (), {}))
    assert (attempt.status, attempt.exception) == ("FAILED", error)


def test_who_cancels_knows_why() -> None:
    async def function() -> None:
        raise asyncio.CancelledError

    made = task(name="t.cancelled")(function)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(ainvoke(made, Request(task=made.name), (), {}))


# Retrying


def test_a_retry_is_scheduled_with_its_plan(worker: Worker) -> None:
    plan = RetryPlan(args=(1, 2), kwargs={"a": 3}, delay=7)
    outcome = run(worker, raises(Retry(cause=ValueError("why"), plan=plan)), attempts=2)
    assert (outcome.status, outcome.delay, outcome.retried) == ("SCHEDULED", 7, True)
    assert (outcome.args, outcome.kwargs) == ("[1,2]", '{"a":3}')
    assert codec.decode(outcome.error)["message"] == "why"
    assert codec.decode(outcome.error)["attempt"] == 3


def test_a_retry_without_delay_is_ready_at_once(worker: Worker) -> None:
    outcome = run(worker, raises(Retry(plan=RetryPlan(delay=0))))
    assert (outcome.status, outcome.retried) == ("READY", True)


def test_a_callback_keeps_the_arguments_that_are_its_own(worker: Worker) -> None:
    plan = RetryPlan(args=([1, 2], "own"), delay=1)
    outcome = run(worker, raises(Retry(plan=plan)), role=Role.ON_FAILURE, taskset_id=new_id())
    assert (outcome.status, outcome.args) == ("SCHEDULED", '["own"]')


def test_a_revoked_one_is_not_retried(worker: Worker) -> None:
    asked: list[uuid.UUID] = []
    worker.is_revoked = lambda key: bool(asked)

    def function() -> None:
        asked.append(new_id())
        raise Retry(plan=RetryPlan(delay=1))

    assert run(worker, function).status == "REVOKED"


def test_automatic_retries_end(worker: Worker) -> None:
    options: dict[str, Any] = {"autoretry_for": [ValueError], "default_retry_delay": 5}
    again = run(worker, raises(ValueError()), max_retries=1, **options)
    assert (again.status, again.delay) == ("SCHEDULED", 5)
    assert run(worker, raises(ValueError()), max_retries=1, retries=1, **options).status == "FAILED"
    assert run(worker, raises(KeyError()), max_retries=1, **options).status == "FAILED"
    none_left = run(worker, raises(MaxRetriesExceeded()), autoretry_for=[Exception])
    assert none_left.status == "FAILED"


def test_what_a_call_says_of_retries_counts(worker: Worker) -> None:
    outcome = run(
        worker, raises(ValueError()), autoretry_for=[ValueError], options='{"max_retries":0}'
    )
    assert outcome.status == "FAILED"


def test_backing_off() -> None:
    @task(name="t.backoff", retry_backoff=2, retry_backoff_max=60, retry_jitter=False)
    def steady() -> None: ...

    @task(name="t.jitter", retry_backoff=True)
    def jittery() -> None: ...

    assert [backoff(steady, n) for n in (0, 1, 2, 10, 10_000)] == [2, 4, 8, 60, 60]
    delays = [backoff(jittery, 3) for _ in range(100)]
    assert all(0 <= delay <= 8 for delay in delays)
    assert max(delays) - min(delays) > 1


# Judging


class Awkward(Exception):
    """An exception that is as bad as user code gets."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Evil:
    def __init__(self) -> None:
        self.args = [self]


@dataclass
class Explosive:
    """Storable, were it not for its own code."""

    name: str

    def __getattribute__(self, name: str) -> Any:
        if name in ("name", "__dict__"):
            raise RuntimeError("bang")
        return object.__getattribute__(self, name)


def test_a_result_that_cannot_be_stored_is_a_failure(worker: Worker) -> None:
    outcome = run(worker, lambda: object())
    assert (outcome.status, outcome.reason) == ("FAILED", "the result cannot be stored")
    assert "return value" in outcome.error_message


def test_so_is_one_whose_own_code_raises(worker: Worker) -> None:
    assert dataclasses.is_dataclass(Explosive)
    outcome = run(worker, lambda: Explosive.__new__(Explosive))
    assert (outcome.status, outcome.reason) == ("FAILED", "the result cannot be stored")


def test_a_retry_that_cannot_be_stored_is_a_failure_and_told_as_one(worker: Worker) -> None:
    told: list[str] = []

    class Careful(Task):
        name = "t.careful"

        def run(self) -> None:
            raise Retry(plan=RetryPlan(args=(object(),), delay=1))

        def after_return(self, status: str, *args: Any) -> None:
            told.append(status)

    outcome = execute(worker, claimed("t.careful"))
    assert (outcome.status, outcome.reason) == ("FAILED", "the retry cannot be stored")
    assert outcome.hooks is not None
    outcome.hooks()
    assert told == ["FAILURE"]


def test_a_task_without_hooks_has_none_and_a_revoked_one_calls_none(worker: Worker) -> None:
    class Hooked(Task):
        name = "t.hooked"

        def run(self) -> None:
            raise Revoked

        def after_return(self, *args: Any) -> None: ...

    assert run(worker, raises(ValueError())).hooks is None
    outcome = execute(worker, claimed("t.hooked"))
    assert (outcome.status, outcome.hooks) == ("REVOKED", None)
    call_hooks(registry.get("t.hooked"), Request(), Attempt(status="REVOKED"))


def test_exceptions_are_described_whatever_they_are() -> None:
    failure = describe(Awkward("x"))
    assert failure.message == "<str() of it raised RuntimeError>"
    assert failure.exception_class.endswith("Awkward")
    assert describe(ValueError("\0 \ud800")).message == "\N{REPLACEMENT CHARACTER} ?"
    assert describe(ValueError(object())).args is None
    assert describe(ValueError(Explosive.__new__(Explosive))).args is None
    assert describe(ValueError(1, "two")).args == '[1,"two"]'


@override_settings(TASKSETS={"MAX_TRACEBACK_BYTES": 1000, "MAX_VALUE_BYTES": 5000})
def test_a_large_exception_leaves_a_small_line(worker: Worker) -> None:
    outcome = run(worker, raises(ValueError("x" * 4990)))
    assert outcome.status == "FAILED"
    line = codec.decode(outcome.error)
    assert line["args"] is None
    assert len(line["message"]) == 2000
    assert "characters left out" in line["traceback"]


@override_settings(TASKSETS={"MAX_VALUE_BYTES": 3000})
def test_one_that_is_too_long_altogether_keeps_the_message() -> None:
    failure = Failure(exception_class="E", message="m", traceback="t" * 2990, extra={"a": 1})
    line = codec.decode(error_line(failure, new_id(), claimed()))
    assert (line["message"], line["traceback"], "a" in line) == ("m", "", False)


def test_the_same_place_gives_the_same_fingerprint(worker: Worker) -> None:
    def fail(text: str) -> None:
        raise ValueError(text)

    def fail_elsewhere(text: str) -> None:
        raise ValueError(text)

    one, two = run(worker, fail, args='["a"]'), run(worker, fail, args='["b"]')
    assert one.error_fingerprint == two.error_fingerprint
    assert run(worker, fail_elsewhere, args='["a"]').error_fingerprint != one.error_fingerprint


# Not calling


def test_an_unknown_task_is_given_back_until_it_fails(worker: Worker) -> None:
    with override_settings(TASKSETS={"UNKNOWN_TASK_WAIT": 50}):
        outcome = prepare(worker, claimed("t.nowhere"))
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.delay, outcome.reason) == ("SCHEDULED", 5, "unknown task")
    last = prepare(worker, claimed("t.nowhere", deferrals=TRIES))
    assert isinstance(last, Outcome)
    assert (last.status, last.reason) == ("FAILED", "unknown task")
    # Claims of a subtask that came back at no charge, for another worker to begin, are no tries.
    earlier = prepare(worker, claimed("t.nowhere", claims=TRIES + 3, deferrals=TRIES - 1))
    assert isinstance(earlier, Outcome)
    assert (earlier.status, earlier.deferred) == ("SCHEDULED", True)


def test_arguments_that_cannot_be_read_are_a_failure(worker: Worker) -> None:
    outcome = run(worker, lambda: None, args='[{"$":"dataclass","class":"no.such","value":{}}]')
    assert (outcome.status, outcome.reason) == ("FAILED", "the arguments cannot be read")


def test_a_database_that_is_away_is_not_the_subtasks_fault(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(text: str) -> None:
        raise OperationalError("the server closed the connection")

    made = task(name="t.away")(lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(codec, "decode", away)
        outcome = prepare(worker, claimed(made.name))
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.started) == ("SCHEDULED", None)


def test_one_that_is_revoked_before_it_begins_is_not_called(worker: Worker) -> None:
    worker.is_revoked = lambda key: True
    outcome = run(worker, raises(AssertionError()))
    assert (outcome.status, outcome.reason, outcome.started) == ("REVOKED", "revoked", None)


def test_nothing_is_given_back_for_ever(worker: Worker) -> None:
    error = RuntimeError("ours")
    assert give_back(worker, claimed(), error, reason="x").status == "SCHEDULED"
    assert give_back(worker, claimed(deferrals=TRIES), error, reason="x").status == "FAILED"


def test_what_was_not_called_knows_no_start(worker: Worker) -> None:
    made = task(name="t.started")(lambda: 1)
    prepared = prepare(worker, claimed(made.name))
    assert isinstance(prepared, Execution)
    attempt = invoke(made, prepared.request, (), {})
    assert conclude(worker, prepared, attempt, 12.5).started == 12.5
