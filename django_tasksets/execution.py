"""Executes one claimed subtask: find the task, read the arguments, call it, judge what it did.

Nothing here writes to the database; what came of it is an Outcome for `recording`.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import InterfaceError, OperationalError, transaction

from . import codec, registry, signals
from .arguments import Reads, arguments, read_here
from .attempts import Attempt, call_hooks, invoke, raised
from .calls import Failure, RetryPlan, Seconds
from .conf import current
from .context import Request
from .exceptions import UnknownTask, UnreadableValue
from .failures import describe, error_line, fingerprint
from .options import stored_options
from .registry import RegisteredTask
from .statuses import Role, SubtaskStatus
from .store.contract import Claimed, Outcome, Store

logger = logging.getLogger("django_tasksets")

EXPIRED: Final = "expired"
REVOKED: Final = "revoked"
TIME_LIMIT_EXCEEDED: Final = "TimeLimitExceeded"
# A subtask that cannot be called here and now is given back this often.
TRIES: Final = 10
# How long it waits then, if it is not for a task that workers with newer code may know.
AGAIN: Final[Seconds] = 10


@dataclass(slots=True)
class Worker:
    """Who executes: what the flow must know of it."""

    store: Store
    id: uuid.UUID
    hostname: str = ""
    is_eager: bool = False
    is_revoked: Callable[[uuid.UUID], bool] = lambda _: False
    """Whether a subtask that is held has been revoked."""
    reads: Reads = read_here
    _retry_limits: dict[str, int | None] = field(default_factory=dict)

    def retry_limit(self, task: RegisteredTask) -> int | None:
        """The task's `max_retries`: settings and attributes do not change while a worker runs."""
        try:
            return self._retry_limits[task.name]
        except KeyError:
            return self._retry_limits.setdefault(task.name, task.max_retries)


@dataclass(slots=True)
class Execution:
    """A claimed subtask that is ready to be called."""

    claimed: Claimed
    task: RegisteredTask
    request: Request
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]
    """What the call says for itself, above what the task says."""


class Undo(Exception):
    """Raised through an atomic block to roll it back."""


def execute(worker: Worker, claimed: Claimed) -> Outcome:
    """Execute a subtask in this thread. Never raises: whatever goes wrong is in the outcome."""
    prepared = prepare(worker, claimed)
    if isinstance(prepared, Outcome):
        return prepared
    started = time.monotonic()
    return conclude(worker, prepared, call(worker.store, prepared), started)


def call(store: Store, prepared: Execution) -> Attempt:
    """Call the task; what an atomic one that did not succeed has written is rolled back."""
    if not prepared.task.atomic:
        return invoke(prepared.task, prepared.request, prepared.args, prepared.kwargs)
    try:
        with transaction.atomic(using=store.alias):
            attempt = invoke(prepared.task, prepared.request, prepared.args, prepared.kwargs)
            if attempt.status != "SUCCESSFUL":
                raise Undo
    except Undo:
        pass
    except Exception as error:  # noqa: BLE001  the commit may find what the task did wrong
        return raised(prepared.task, prepared.request, error)
    return attempt


# Before the call


def prepare(worker: Worker, claimed: Claimed) -> Execution | Outcome:
    """What is needed to call the task, or the outcome if it is not to be called."""
    try:
        task = registry.get(claimed.task_name)
    except UnknownTask as error:
        # During a deployment other workers may know it already.
        delay = current().UNKNOWN_TASK_WAIT / TRIES
        return give_back(worker, claimed, error, reason="unknown task", delay=delay)
    try:
        return _prepare(worker, claimed, task)
    except (OperationalError, InterfaceError) as error:
        # The database does not answer the task's process right now: no fault of the subtask.
        return give_back(worker, claimed, error, reason="the database was away")
    except Exception as error:  # noqa: BLE001  a class that moved, a model row that is gone, …
        return failed(worker, claimed, describe(error), reason="the arguments cannot be read")


def _prepare(worker: Worker, claimed: Claimed, task: RegisteredTask) -> Execution | Outcome:
    if claimed.expires_at is not None and claimed.expires_at <= worker.store.now():
        return Outcome(claimed, SubtaskStatus.REVOKED, reason=EXPIRED)
    if worker.is_revoked(claimed.id):
        return Outcome(claimed, SubtaskStatus.REVOKED, reason=REVOKED)
    options = stored_options(claimed.options)
    args = arguments(
        worker.store, claimed, immutable=options.get("immutable", False), reads=worker.reads
    )
    kwargs = codec.decode(claimed.kwargs)
    if not isinstance(kwargs, dict):
        raise UnreadableValue("The keyword arguments are not a JSON object")
    request = Request(
        task=claimed.task_name,
        subtask_id=claimed.id,
        taskset_id=claimed.taskset_id if claimed.role == Role.MEMBER else None,
        args=args,
        kwargs=kwargs,
        retries=claimed.retries,
        max_retries=options.get("max_retries", worker.retry_limit(task)),
        attempt=claimed.attempts + claimed.crashes + 1,
        generation=claimed.generation,
        queue=claimed.queue_name,
        hostname=worker.hostname,
        worker_id=worker.id,
        is_eager=worker.is_eager,
        is_revoked=lambda: worker.is_revoked(claimed.id),
    )
    if signals.subtask_started.receivers:
        signals.send(
            signals.subtask_started,
            claimed.task_name,
            subtask_id=claimed.id,
            taskset_id=claimed.taskset_id,
            worker_id=worker.id,
        )
    return Execution(claimed, task, request, args, kwargs, options)


def give_back(
    worker: Worker, claimed: Claimed, error: BaseException, *, reason: str, delay: Seconds = AGAIN
) -> Outcome:
    """The outcome that has somebody try again later, but not for ever."""
    tries = claimed.deferrals + 1
    if tries > TRIES:
        return failed(worker, claimed, describe(error), reason=reason)
    logger.warning(
        "subtask given back id=%s task=%r reason=%r tries=%s error=%r",
        claimed.id,
        claimed.task_name,
        reason,
        tries,
        error,
    )
    return Outcome(claimed, SubtaskStatus.SCHEDULED, delay=delay, reason=reason, deferred=True)


# After the call


def conclude(worker: Worker, execution: Execution, attempt: Attempt, started: float) -> Outcome:
    """The outcome to be recorded for what the call came to."""
    try:
        outcome = _concluded(worker, execution, attempt)
    except Exception as error:  # noqa: BLE001  NotStorable, or what the values' own code raises
        what = "retry" if attempt.status == "RETRY" else "result"
        attempt = Attempt(status="FAILED", exception=error, failure=describe(error))
        reason = f"the {what} cannot be stored"
        outcome = failed(worker, execution.claimed, attempt.failure, reason=reason)
    outcome.started = started
    outcome.exception = attempt.exception
    if execution.task.has_hooks and outcome.status != SubtaskStatus.REVOKED:
        outcome.hooks = lambda: call_hooks(execution.task, execution.request, attempt)
    return outcome


def _concluded(worker: Worker, execution: Execution, attempt: Attempt) -> Outcome:
    claimed = execution.claimed
    if attempt.status == "SUCCESSFUL":
        value = codec.encode(attempt.value, path="return value")
        return Outcome(claimed, SubtaskStatus.SUCCESSFUL, return_value=value)
    if attempt.status == "RETRY":
        return _retried(worker, execution, attempt)
    if attempt.status == "REVOKED":
        return Outcome(claimed, SubtaskStatus.REVOKED, reason=REVOKED)
    return failed(worker, claimed, attempt.failure)


def failed(
    worker: Worker, claimed: Claimed, failure: Failure | None, *, reason: str = ""
) -> Outcome:
    """A final failure."""
    outcome = Outcome(claimed, SubtaskStatus.FAILED, reason=reason)
    if failure is not None:
        outcome.error = error_line(failure, worker.id, claimed)
        outcome.error_fingerprint = failure.fingerprint
        outcome.error_class = failure.exception_class
        outcome.error_message = failure.message
        outcome.reason = reason or f"{failure.exception_class}: {failure.message}"[:200]
    return outcome


def out_of_time(worker: Worker, claimed: Claimed, message: str, trace: str = "") -> Outcome:
    """The failure of one that took longer than its time limit."""
    failure = Failure(
        exception_class=TIME_LIMIT_EXCEEDED,
        message=message,
        traceback=trace,
        fingerprint=fingerprint(TIME_LIMIT_EXCEEDED, claimed.task_name),
    )
    return failed(worker, claimed, failure, reason="time limit exceeded")


def _retried(worker: Worker, execution: Execution, attempt: Attempt) -> Outcome:
    claimed, plan = execution.claimed, attempt.retry or RetryPlan()
    if execution.request.revoked:
        return Outcome(claimed, SubtaskStatus.REVOKED, reason=REVOKED)
    outcome = Outcome(claimed, SubtaskStatus.SCHEDULED, retried=True)
    if attempt.failure is not None:
        outcome.error = error_line(attempt.failure, worker.id, claimed)
        outcome.error_class = attempt.failure.exception_class
        outcome.error_message = attempt.failure.message
    delay = execution.task.default_retry_delay if plan.delay is None else plan.delay
    outcome.run_after, outcome.delay = plan.eta, delay
    if worker.is_eager or (plan.eta is None and delay <= 0):
        outcome.status = SubtaskStatus.READY
    if plan.args is not None:
        # What a callback was given first is not part of its own arguments.
        given = claimed.role != Role.MEMBER and not execution.options.get("immutable")
        outcome.args = codec.encode_args(plan.args[1:] if given else plan.args)
    if plan.kwargs is not None:
        outcome.kwargs = codec.encode_kwargs(plan.kwargs)
    return outcome


# Without rows


def apply_inline(
    task: RegisteredTask, request: Request, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Attempt:
    """Call the task here and now, with its retries at once and its hooks; nothing is stored."""
    while True:
        request.args, request.kwargs = args, kwargs
        attempt = invoke(task, request, args, kwargs)
        if task.has_hooks:
            call_hooks(task, request, attempt)
        if attempt.retry is None:
            return attempt
        request.retries += 1
        request.attempt += 1
        args = args if attempt.retry.args is None else attempt.retry.args
        kwargs = kwargs if attempt.retry.kwargs is None else attempt.retry.kwargs
