"""The thread that records outcomes, in batches."""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from typing import Final

from django.db import DatabaseError, Error, InterfaceError, OperationalError, connections

from ..calls import Seconds
from ..execution import Worker
from ..maintenance import count_late
from ..recording import Recorded, record
from ..statuses import SubtaskStatus
from ..store.contract import Outcome, batches
from ..wakeups import wake
from .announcements import Announcements
from .connections import drop, forget_queries
from .executor import Executors
from .load import Load
from .threads import FIRST_DELAY, LAST_DELAY

logger = logging.getLogger("django_tasksets")

# At most one wake-up of other processes in this time.
NOTIFY_EVERY: Final[Seconds] = 0.1
# Not sooner than this: by then this process, whose claimer may gather for a while, may have claimed
# all that there is.
NOTIFY_AFTER: Final[Seconds] = 0.015
# For how long to wait for more to record, if all that is held should end within that time: one
# record of ten results takes a fraction of the time that several of a few take.
LINGER: Final[Seconds] = 0.004
# How soon what could not be recorded is tried again: doubled each time.
FIRST_PARKING: Final[Seconds] = 0.5
LAST_PARKING: Final[Seconds] = 5.0


class Recorder(threading.Thread):
    """Records what the executors put out. Batches form by themselves: while one is being recorded
    outcomes pile up, and a single one is recorded at once."""

    def __init__(
        self, worker: Worker, load: Load, executors: Executors, announcements: Announcements
    ) -> None:
        super().__init__(name="recorder", daemon=True)
        self._worker, self._load, self._executors = worker, load, executors
        self._store = worker.store
        self._outbox = executors.outbox
        self._announcements = announcements
        self._parked: list[Outcome] = []
        self._parked_sets: set[uuid.UUID | None] = set()
        self._parking = FIRST_PARKING
        self._retry_at = 0.0
        self._to_notify: set[str] = set()
        self._notify_at = 0.0
        self._ready_at = 0.0
        self._stopping = False

    def stop(self, timeout: Seconds) -> bool:
        """Record what is there, then end; whether that was done in time."""
        self._outbox.put(None)
        self.join(timeout)
        return not self.is_alive()

    def run(self) -> None:
        """Record until told to stop."""
        self._connect()
        while not self._stopping or self._parked:
            try:
                self._turn()
            except Exception:
                # What follows a record may fail; what is recorded is recorded.
                logger.exception("recorder failed, and goes on")
        self._notify()

    def _turn(self) -> None:
        batch = self._next_batch()
        if self._parked_sets:
            batch = self._park_more(batch)
        if batch:
            self._follow_up(self._record(batch))
        if self._parked and time.monotonic() >= self._retry_at:
            self._record_parked()
        if self._to_notify and time.monotonic() >= self._notify_at:
            self._notify()
        forget_queries(connections[self._store.alias])

    def _next_batch(self) -> list[Outcome]:
        """What is there, up to a batch; waits for a first one, if nothing else is due."""
        batch: list[Outcome] = []
        due = [self._retry_at] if self._parked else []
        due += [self._notify_at] if self._to_notify else []
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        try:
            if not self._stopping:
                self._add(batch, self._outbox.get(timeout=timeout))
            elif timeout:
                time.sleep(timeout)
            patience = self._load.time_to_end(self._executors.waiting())
            until = time.monotonic() + patience if patience <= LINGER else 0.0
            while len(batch) < self._store.records_at_once:
                left = until - time.monotonic() if self._load.in_flight > len(batch) else 0.0
                self._add(batch, self._outbox.get(block=left > 0, timeout=max(left, 0.0)))
        except queue.Empty:
            pass
        return batch

    def _add(self, batch: list[Outcome], item: Outcome | Recorded | None) -> None:
        if isinstance(item, Outcome):
            batch.append(item)
        elif item is None:
            self._stopping = True
        else:
            self._follow_up(item)

    # Recording

    def _record(self, batch: list[Outcome]) -> Recorded:
        """Record the batch, however long the database is away. Nothing is lost by trying again:
        what an unacknowledged commit has written is known by its fence."""
        delay = FIRST_DELAY
        while True:
            session = connections[self._store.alias].connection
            try:
                with self._load.writing():
                    return record(self._store, self._worker.id, batch)
            except Exception as error:
                # A server that ends a session may say so by an error of any class; Django has
                # another one by now, or none.
                is_gone = connections[self._store.alias].connection is not session
                if not (is_gone or isinstance(error, OperationalError | InterfaceError)):
                    logger.exception("recording failed size=%s", len(batch))
                    self._connect()
                    return self._record_one_by_one(batch)
                logger.warning("recording waits for the database error=%r", error)
            time.sleep(delay)
            delay = min(delay * 2, LAST_DELAY)
            self._connect()

    def _record_one_by_one(self, batch: list[Outcome]) -> Recorded:
        """What one outcome has wrong is not to keep the others from being recorded."""
        recorded = Recorded()
        for outcome in batch:
            try:
                recorded.absorb(record(self._store, self._worker.id, [outcome]))
            except (DatabaseError, InterfaceError) as error:
                # What is wrong with the outcome, record() knows; this is about the database.
                logger.warning("subtask parked id=%s error=%r", outcome.claimed.id, error)
                self._connect()
                recorded.parked.append(outcome)
            except Exception:
                logger.exception("subtask not recorded id=%s", outcome.claimed.id)
                self._connect()
                recorded.absorb(self._record_failure(outcome))
        return recorded

    def _record_failure(self, outcome: Outcome) -> Recorded:
        """Record that this could not be recorded: without its links, which may be the reason."""
        claimed = outcome.claimed._replace(links="")
        reason = "the result could not be recorded"
        failed = Outcome(claimed, SubtaskStatus.FAILED, reason=reason, started=outcome.started)
        try:
            return record(self._store, self._worker.id, [failed])
        except Exception as error:  # noqa: BLE001  logged, and tried again
            logger.warning("subtask parked id=%s error=%r", claimed.id, error)
            self._connect()
            return Recorded(parked=[outcome])

    def _connect(self) -> None:
        try:
            drop(self._store.alias)
            self._store.dedicate()
        except Error as error:
            logger.warning("recording waits for the database error=%r", error)

    # Parking

    def _park_more(self, batch: list[Outcome]) -> list[Outcome]:
        """Park outcomes of sets that are parked already: each try may cost the others a second."""
        rest: list[Outcome] = []
        for outcome in batch:
            outcome.parked = outcome.claimed.taskset_id in self._parked_sets
            (self._parked if outcome.parked else rest).append(outcome)
        return rest

    def _park(self, outcomes: list[Outcome]) -> None:
        self._parked += outcomes
        self._parked_sets.update(one.claimed.taskset_id for one in outcomes)
        self._parked_sets.discard(None)
        self._retry_at = time.monotonic() + self._parking
        self._parking = min(self._parking * 2, LAST_PARKING)

    def _record_parked(self) -> None:
        parked, self._parked = self._parked, []
        self._parked_sets.clear()
        for batch in batches(parked, self._store.records_at_once):
            self._follow_up(self._record(batch))
        if not self._parked:
            self._parking = FIRST_PARKING

    # What follows

    def _follow_up(self, recorded: Recorded) -> None:
        # A claim that begins from now on sees what was committed.
        committed_at = time.monotonic()
        if recorded.late:
            self._load.drop(outcome.claimed for outcome in recorded.late)
            self._count_late(len(recorded.late))
        hooks = [outcome.hooks for outcome in recorded.written if outcome.hooks is not None]
        self._load.expect(len(hooks) + 1)
        for key in recorded.settled.over_limit:
            self._load.revoke_set(key)
        self._load.drop(outcome.claimed for outcome in recorded.written)
        if recorded.parked:
            self._park(recorded.parked)
        if recorded.ready:
            # Callbacks first: who waits for them waits for all that others are told before.
            self._load.bell.ring()
            self._ready_at = committed_at
            if not self._to_notify:
                self._notify_at = max(self._notify_at, self._ready_at + NOTIFY_AFTER)
            self._to_notify.update(recorded.ready.values())
        for hook in hooks:
            self._executors.call(hook)
        self._announcements.put(recorded)

    def _count_late(self, count: int) -> None:
        try:
            count_late(self._store, self._worker.id, count)
        except Error as error:
            logger.warning("late results not counted count=%s error=%r", count, error)

    def _notify(self) -> None:
        """Wake other processes, on other hosts too, unless this one has left nothing to them."""
        queues = self._load.unclaimed(self._to_notify, self._ready_at)
        self._to_notify = set()
        if not queues:
            return
        self._notify_at = time.monotonic() + NOTIFY_EVERY
        try:
            wake(self._store, queues)
        except Error as error:
            logger.warning("wake-up not sent error=%r", error)
