"""Signals, and this package's own log, which is a receiver of them.

All are sent after the commit of what they report, with `send_robust`: a receiver that raises is
logged and changes nothing. Those about subtasks are sent in the process that executed them, by a
thread of its own; under ALWAYS_EAGER and in tests, by the caller's thread. What happens for several
subtasks at once is sent one by one, in no promised order.
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal, receiver

logger = logging.getLogger("django_tasksets")

taskset_enqueued = Signal()
"""A set was applied or opened. Sender: TaskSetRecord. Arguments: `taskset_id` (UUID), `total`
(int, members so far). Sent in the process that applied it, on commit."""

taskset_progressed = Signal()
"""Members of a set finished; at most twice a second for each set and process. Sender:
TaskSetRecord. Arguments: `taskset_id` (UUID)."""

taskset_finished = Signal()
"""A set finished. Sender: TaskSetRecord. Arguments: `taskset_id` (UUID), `status`
(TaskSetStatus), `generation` (int). Sent at least once for each set and generation."""

subtask_started = Signal()
"""A worker is about to call the task. Sender: the task's name (str). Arguments: `subtask_id`,
`taskset_id` (UUID or None), `worker_id`. Sent before the call, by the thread that makes it, and on
the connections that the task will use; for an async task, by the one that prepares it."""

subtask_retried = Signal()
"""An execution ended in a retry. Sender: the task's name (str). Arguments: `subtask_id`,
`taskset_id`, `error` (str, the exception's class and message; may be empty)."""

subtask_finished = Signal()
"""A subtask finished. Sender: the task's name (str). Arguments: `subtask_id`, `taskset_id`,
`status` (SubtaskStatus), `reason` (str, may be empty)."""

worker_started = Signal()
"""A worker process is about to claim. Sender: WorkerRecord. Arguments: `worker_id` (UUID). Sent in
that process, by its main thread."""

worker_stopped = Signal()
"""A worker process has recorded or given back everything. Sender: WorkerRecord. Arguments:
`worker_id` (UUID). Sent in that process, by its main thread."""


def send(signal: Signal, sender: Any, **arguments: Any) -> None:
    """Send to all receivers; the errors of those that raise are logged."""
    try:
        answers = signal.send_robust(sender, **arguments)
    except SystemExit:
        # Not an Exception, so it keeps later receivers from being called, but nothing else.
        logger.exception("signal receiver asked to exit")
        return
    for called, answer in answers:
        if isinstance(answer, Exception):
            logger.error("signal receiver failed receiver=%r", called, exc_info=answer)


@receiver(taskset_enqueued)
def log_taskset_enqueued(sender: Any, *, taskset_id: Any, total: int, **_: Any) -> None:
    """One line at DEBUG."""
    logger.debug("taskset enqueued id=%s total=%s", taskset_id, total)


@receiver(taskset_finished)
def log_taskset_finished(sender: Any, *, taskset_id: Any, status: str, **_: Any) -> None:
    """One line at INFO."""
    logger.info("taskset finished id=%s status=%s", taskset_id, status)


@receiver(subtask_finished)
def log_subtask_finished(
    sender: str, *, subtask_id: Any, status: str, reason: str, **_: Any
) -> None:
    """One line, at WARNING for one that did not succeed."""
    level = logging.DEBUG if status == "SUCCESSFUL" else logging.WARNING
    if logger.isEnabledFor(level):
        message = "subtask finished id=%s task=%r status=%s reason=%r"
        logger.log(level, message, subtask_id, sender, status, reason)


_only_the_log = list(subtask_finished.receivers)


def is_success_heard() -> bool:
    """Whether anybody is to be told that a subtask succeeded: mostly it is the log alone, which
    drops it, and then there is no need to call it ten thousand times."""
    return subtask_finished.receivers != _only_the_log or logger.isEnabledFor(logging.DEBUG)


@receiver(subtask_retried)
def log_subtask_retried(sender: str, *, subtask_id: Any, error: str, **_: Any) -> None:
    """One line at INFO."""
    logger.info("subtask retried id=%s task=%r error=%r", subtask_id, sender, error)
