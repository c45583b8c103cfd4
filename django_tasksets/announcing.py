"""Tells others what has been committed: hooks, wake-ups, signals. All of it may fail."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from django.db import Error, transaction

from . import signals
from .completion import Settled, outcome
from .models import TaskSetRecord
from .recording import Recorded
from .statuses import SubtaskStatus, TaskSetStatus
from .store.contract import Ended, Outcome, SetState, Store, batches
from .store.moments import Now

logger = logging.getLogger("django_tasksets")

PROGRESS_INTERVAL = 0.5
CHUNK = 500

FinishedSet: TypeAlias = tuple[uuid.UUID, TaskSetStatus, int]
"""A set's id, its status, and in which generation it has that."""


class Announcer:
    """Sends the signals for what was recorded; one for each thread that does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._progressed: dict[uuid.UUID, float] = {}
        self._sent: list[FinishedSet] = []

    def announce(self, recorded: Recorded) -> None:
        """Send what receivers wait for, log late results, and note what was sent."""
        self.send(recorded)
        self.acknowledge()

    @property
    def has_to_acknowledge(self) -> bool:
        """Whether taskset_finished was sent, and that is not noted yet."""
        return bool(self._sent)

    def acknowledge(self) -> None:
        """Note in the database what was sent since the last time; of what is not, the sweep sends
        it again."""
        sent, self._sent = self._sent, []
        _acknowledge(self._store, sent)

    def send(self, recorded: Recorded) -> None:
        """Send what receivers wait for, and log late results; acknowledge() is to follow."""
        for late in recorded.late:
            logger.warning(
                "subtask late id=%s claims=%s status=%s",
                late.claimed.id,
                late.claimed.claims,
                late.status,
            )
        is_success_heard = signals.is_success_heard()
        for written in recorded.written:
            if is_success_heard or written.status != SubtaskStatus.SUCCESSFUL:
                send_subtask(written)
        self._send_progress(recorded.written)
        self._send_finished(recorded.settled.finished)

    def _send_progress(self, written: Sequence[Outcome]) -> None:
        if not signals.taskset_progressed.receivers:
            return
        now = time.monotonic()
        for key in {final.claimed.set_that_counts for final in written if final.is_final}:
            if key is not None and now - self._progressed.get(key, -1) >= PROGRESS_INTERVAL:
                self._progressed[key] = now
                signals.send(signals.taskset_progressed, TaskSetRecord, taskset_id=key)
        if len(self._progressed) > 10_000:
            self._progressed.clear()

    def _send_finished(self, finished: Sequence[SetState]) -> None:
        for state in finished:
            self._progressed.pop(state.id, None)
        sets = _finished_sets(finished)
        _send(sets)
        self._sent += sets


def announce_finished(store: Store, finished: Sequence[FinishedSet]) -> None:
    """Send taskset_finished for each of the sets, and note that it was sent."""
    _send(finished)
    _acknowledge(store, finished)


def _finished_sets(states: Iterable[SetState]) -> list[FinishedSet]:
    return [(state.id, outcome(state), state.generation) for state in states]


def _send(finished: Iterable[FinishedSet]) -> None:
    for key, status, generation in finished:
        signals.send(
            signals.taskset_finished,
            TaskSetRecord,
            taskset_id=key,
            status=status,
            generation=generation,
        )


def _acknowledge(store: Store, finished: Iterable[FinishedSet]) -> None:
    generations: dict[int, list[uuid.UUID]] = {}
    for key, _, generation in finished:
        generations.setdefault(generation, []).append(key)
    sets = TaskSetRecord.objects.using(store.alias).finished()
    try:
        for generation, ids in generations.items():
            for batch in batches(sorted(ids), CHUNK):
                sets.filter(id__in=batch, generation=generation).update(announced_at=Now())
    except Error as error:
        # The sweep sends it again.
        logger.warning("taskset_finished not acknowledged error=%r", error)


def tell_on_commit(
    store: Store, settled: Settled, ended: Sequence[Ended] = (), *, reason: str = ""
) -> None:
    """Once the current transaction commits, send the signals for the sets that it finished and
    for the subtasks that it ended without their being executed."""

    def tell() -> None:
        for one in ended:
            signals.send(
                signals.subtask_finished,
                one.task_name,
                subtask_id=one.id,
                taskset_id=one.taskset_id,
                status=SubtaskStatus.REVOKED,
                reason=reason,
            )
        announce_finished(store, _finished_sets(settled.finished))

    if ended or settled.finished:
        transaction.on_commit(tell, using=store.alias, robust=True)


def send_subtask(written: Outcome) -> None:
    """Send subtask_finished or subtask_retried, whichever fits."""
    claimed = written.claimed
    if written.is_final:
        signals.send(
            signals.subtask_finished,
            claimed.task_name,
            subtask_id=claimed.id,
            taskset_id=claimed.taskset_id,
            status=written.status,
            reason=written.reason,
        )
    elif written.retried:
        signals.send(
            signals.subtask_retried,
            claimed.task_name,
            subtask_id=claimed.id,
            taskset_id=claimed.taskset_id,
            error=f"{written.error_class}: {written.error_message}" if written.error_class else "",
        )


def run_hooks(written: Outcome) -> None:
    """Call the task's hooks for a recorded outcome, if it has any; errors are logged there."""
    if written.hooks is not None:
        written.hooks()
        written.hooks = None
