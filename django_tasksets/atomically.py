"""Executes a task with `atomic=True`: its own writes and its record commit together, or not."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, OperationalError, transaction

from .attempts import Attempt, raised
from .execution import Execution, Worker, conclude, give_back
from .recording import Recorded, record
from .statuses import SubtaskStatus
from .store.contract import Outcome


class _RollBack(Exception):
    """Leaves the transaction without its writes."""


def execute_atomically(
    worker: Worker, execution: Execution, call: Callable[[Execution], Attempt]
) -> Recorded | Outcome:
    """Call the task and record its success in one transaction on this thread's connection.

    Returns what was recorded; or, when everything has been rolled back, the outcome that is still
    to be recorded: a failure, a retry, or READY for a deadlock, at no charge. It is given back for
    a moment if the database goes away: had an unacknowledged commit succeeded, the fence refuses
    that.
    """
    started = time.monotonic()
    outcome = Outcome(execution.claimed, SubtaskStatus.READY)
    recorded: Recorded | None = None
    try:
        with transaction.atomic(using=worker.store.alias):
            attempt = call(execution)
            concluded = conclude(worker, execution, attempt, started)
            if not _is_transient(worker, attempt.exception):
                outcome = concluded
            if concluded.status != SubtaskStatus.SUCCESSFUL:
                raise _RollBack
            outcome = Outcome(execution.claimed, SubtaskStatus.READY)
            recorded = record(worker.store, worker.id, [concluded])
            if not recorded.written:
                raise _RollBack
    except _RollBack:
        return outcome if recorded is None or recorded.parked else recorded
    except (DatabaseError, InterfaceError) as error:
        if _is_transient(worker, error):
            return outcome
        if isinstance(error, OperationalError | InterfaceError):
            return give_back(worker, execution.claimed, error, reason="the database was away")
        # What the database refused at the commit is the task's doing: a deferred constraint.
        attempt = raised(execution.task, execution.request, error)
        return conclude(worker, execution, attempt, started)
    return recorded


def _is_transient(worker: Worker, error: BaseException | None) -> bool:
    return error is not None and worker.store.is_transient(error)
