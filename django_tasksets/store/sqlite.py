"""The store on SQLite: one writer at a time, so each write transaction takes the lock at once."""

from __future__ import annotations

import datetime
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any, Final, TypeVar

from django.db import OperationalError, transaction
from django.utils import timezone

from ..statuses import SubtaskStatus
from .contract import (
    LAST_CLAIM,
    Claimed,
    Listener,
    NewSubtask,
    Outcome,
    SetState,
    SomeDiffer,
    Tally,
    WaitingCallback,
    batches,
    in_claim_order,
)
from .endings import EndingStore
from .fileversion import FileListener
from .onewriter import OneWriter
from .portable import MAX_ERRORS
from .sqliterows import as_text, read
from .tables import INSERT_COLUMNS, STATE_COLUMNS, SUBTASK, TASKSET

T = TypeVar("T")

# A statement that changes nothing takes the write lock all the same, and waits for it.
TAKE_WRITE_LOCK: Final = f"UPDATE {TASKSET} SET total = total WHERE 0"

INSERT: Final = (
    f"INSERT INTO {SUBTASK} ({INSERT_COLUMNS}) "
    f"VALUES ({', '.join(['%s'] * len(NewSubtask._fields))})"
)
# Batches go in and out as one JSON text each. Row by row, sqlite3 would let go of the interpreter
# at each row, and wait to get it back from the threads that execute while it holds the write lock.
# Rows that a transaction has found it finds again by their numbers in the file. A column may hold
# values of any type, if it was not us who wrote them; what has no rank goes first, out of the way.
CANDIDATES: Final = f"""
    SELECT json_group_array(json_array(
        CASE typeof(priority) WHEN 'integer' THEN -priority ELSE -{LAST_CLAIM} END,
        CASE typeof(claim_order) WHEN 'integer' THEN claim_order ELSE 0 END, rowid
    )) FROM (
        SELECT rowid, priority, claim_order FROM {SUBTASK}
        WHERE status = 'READY' AND queue_name = %s
        ORDER BY priority DESC, claim_order LIMIT %s)"""
CLAIM: Final = f"""
    UPDATE {SUBTASK} SET status = 'RUNNING', worker_id = %s,
        claims = min(claims, {LAST_CLAIM} - 1) + 1, claimed_at = %s
    WHERE rowid IN (SELECT value FROM json_each(%s))"""
# By a step in the index for each. Not what is more than an empty text: that may be the name of one,
# if it was not us who wrote it.
FIRST_QUEUE: Final = f"SELECT min(queue_name) FROM {SUBTASK} WHERE status = 'READY'"
READY_QUEUES: Final = f"""
    WITH RECURSIVE queue(name) AS (
        {FIRST_QUEUE} UNION ALL
        SELECT ({FIRST_QUEUE} AND queue_name > queue.name) FROM queue WHERE name IS NOT NULL
    ) SELECT name FROM queue WHERE name IS NOT NULL"""
ANY_READY: Final = f"SELECT 1 FROM {SUBTASK} WHERE status = 'READY' AND queue_name = %s LIMIT 1"
WRITE: Final = f"""
    UPDATE {SUBTASK} SET status = %s, reason = %s, return_value = %s, errors = CASE
            WHEN length(errors) < {MAX_ERRORS} THEN errors || %s ELSE coalesce(%s, errors) END,
        error_fingerprint = coalesce(%s, error_fingerprint), attempts = attempts + %s,
        started_at = coalesce(started_at, %s), finished_at = %s,
        expires_at = CASE WHEN %s THEN NULL ELSE expires_at END,
        worker_id = CASE WHEN %s THEN worker_id END, claimed_at = CASE WHEN %s THEN claimed_at END,
        run_after = coalesce(%s, run_after), args = coalesce(%s, args),
        kwargs = coalesce(%s, kwargs), retries = retries + %s, crashes = crashes + %s,
        deferrals = CASE WHEN %s THEN 0 ELSE deferrals + %s END
    WHERE id = %s"""
# The plus keeps the batch in charge: each of it is to find its row by the id.
SUCCEED: Final = f"""
    UPDATE {SUBTASK} SET status = 'SUCCESSFUL', reason = '', finished_at = %s, expires_at = NULL,
        return_value = outcome.value ->> 2, attempts = attempts + 1,
        started_at = coalesce(started_at, outcome.value ->> 3)
    FROM json_each(%s) outcome
    WHERE {SUBTASK}.id = outcome.value ->> 0 AND claims = outcome.value ->> 1
        AND +status = 'RUNNING' AND +worker_id = %s"""
COUNT: Final = f"""
    UPDATE {TASKSET} SET remaining = remaining - (tally.value ->> 1),
        successful = successful + (tally.value ->> 2), failed = failed + (tally.value ->> 3),
        revoked = revoked + (tally.value ->> 4),
        started_at = coalesce(started_at, tally.value ->> 5)
    FROM json_each(%s) tally WHERE {TASKSET}.id = tally.value ->> 0
    RETURNING {STATE_COLUMNS}"""


class SQLiteStore(EndingStore):
    """Hot operations as prepared statements over many rows, each in one write transaction."""

    # Whoever has the one lock should get much done with it.
    claims_at_once = 2000
    records_at_once = 1000
    has_one_writer = True

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self._one_writer = OneWriter()

    def reconnect(self) -> None:
        super().reconnect()
        with self.connection.cursor() as cursor:
            # In WAL mode NORMAL can lose the last commits to a power cut, never to a crash of a
            # process, and the file stays consistent; rollback-journal mode keeps its own setting.
            cursor.execute("PRAGMA journal_mode")
            if cursor.fetchone()[0] == "wal":
                cursor.execute("PRAGMA synchronous = NORMAL")

    # Transactions

    def run(self, work: Callable[[], T]) -> T:
        mode = self.connection.settings_dict["OPTIONS"].get("transaction_mode")
        begins_locked = str(mode).upper() in ("IMMEDIATE", "EXCLUSIVE")
        # Inside another transaction this thread may have it already.
        is_nested = self.is_nested

        with nullcontext() if is_nested else self._one_writer.turn() as end_turn:

            def locked_work() -> T:
                if end_turn is not None:
                    # First of all that is called on commit: others are receivers of signals.
                    transaction.on_commit(end_turn, using=self.alias)
                if not begins_locked:
                    with self.connection.cursor() as cursor:
                        cursor.execute(TAKE_WRITE_LOCK)
                with nullcontext() if is_nested else self._one_writer.writing():
                    return work()

            return super().run(locked_work)

    def run_statement(self, work: Callable[[], T]) -> T:
        if self.is_nested:
            return super().run_statement(work)
        with self._one_writer.turn():
            return super().run_statement(work)

    def pace(self) -> None:
        self._one_writer.pace()

    def now(self) -> datetime.datetime:
        # The file is on this machine, and so is its clock.
        return timezone.now()

    def is_transient(self, error: BaseException) -> bool:
        return isinstance(error, OperationalError) and "locked" in str(error)

    # Enqueue

    def insert(self, rows: Iterable[NewSubtask]) -> None:
        with self.connection.cursor() as cursor:
            # In batches: Django keeps all parameters of one call until it has returned.
            for batch in batches(rows, 1000):
                cursor.executemany(INSERT, [_adapted(row) for row in batch])

    # Claim

    def claim(self, worker_id: uuid.UUID, queues: Sequence[str], limit: int) -> list[Claimed]:
        names = self.with_ready(queues) if queues else self.ready_queues()
        if not names:
            return []
        numbers = self.run(lambda: self._claim(worker_id, names, limit))
        # They are ours now, and read without the lock.
        return in_claim_order(read(self, numbers))

    def with_ready(self, queues: Sequence[str]) -> list[str]:
        names: list[str] = []
        with self.connection.cursor() as cursor:
            for name in dict.fromkeys(queues):
                cursor.execute(ANY_READY, [name])
                if cursor.fetchone():
                    names.append(name)
        return names

    def ready_queues(self) -> list[str]:
        with self.connection.cursor() as cursor:
            cursor.execute(READY_QUEUES)
            return [name for (name,) in cursor.fetchall()]

    def _claim(self, worker_id: uuid.UUID, queues: Sequence[str], limit: int) -> list[int]:
        """Claim the best; returns their numbers in the file."""
        candidates: list[list[int]] = []
        with self.connection.cursor() as cursor:
            for name in queues:
                cursor.execute(CANDIDATES, [name, limit])
                candidates += json.loads(cursor.fetchone()[0])
            if len(queues) > 1:
                candidates.sort()
            numbers = [number for _, _, number in candidates[:limit]]
            cursor.execute(CLAIM, [worker_id.hex, as_text(self.now()), json.dumps(numbers)])
        return numbers

    # Record

    def finishing(
        self,
        worker_id: uuid.UUID,
        outcomes: Sequence[Outcome],
        tallies: Callable[[], Sequence[Tally]],
    ) -> Callable[[], list[SetState]] | None:
        if not all(map(_is_plain, outcomes)):
            return None
        successes = self._as_parameter(outcomes)

        def work() -> list[SetState]:
            self._succeed(worker_id, successes, len(outcomes))
            return self.count(tallies())

        return work

    def finish(self, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
        held = self.held(worker_id, outcomes)
        now = self.now()
        if good := [outcome for outcome in held if _is_plain(outcome)]:
            self._succeed(worker_id, self._as_parameter(good), len(good))
        others = [_written(outcome, now) for outcome in held if not _is_plain(outcome)]
        with self.connection.cursor() as cursor:
            cursor.executemany(WRITE, others)
        return held

    def _as_parameter(self, successes: Sequence[Outcome]) -> str:
        now, clock = self.now(), time.monotonic()

        @cache
        def moment(age: int) -> str:
            return as_text(now - datetime.timedelta(milliseconds=age))

        return json.dumps([
            (
                outcome.claimed.id.hex,
                outcome.claimed.claims,
                outcome.return_value,
                # To the millisecond, for then many have begun at the same one.
                moment(round((clock - (outcome.started or 0)) * 1000)),
            )
            for outcome in successes
        ])  # fmt: skip

    def _succeed(self, worker_id: uuid.UUID, successes: str, count: int) -> None:
        """Write so many; raises SomeDiffer if some have another fence. Which, it is not told."""
        with self.connection.cursor() as cursor:
            cursor.execute(SUCCEED, [as_text(self.now()), successes, worker_id.hex])
            if cursor.rowcount != count:
                raise SomeDiffer

    def count(self, tallies: Sequence[Tally]) -> list[SetState]:
        now = self.now()
        batch = [_counted(tally, now) for tally in tallies]
        with self.connection.cursor() as cursor:
            cursor.execute(COUNT, [json.dumps(batch)])
            return list(map(_state, cursor.fetchall()))

    # The end of a set

    among = "IN (SELECT value FROM json_each(%s))"
    lock = ""  # The file is.

    def as_parameter(self, ids: list[uuid.UUID]) -> str:
        return json.dumps([key.hex for key in ids])

    def as_key(self, one: uuid.UUID) -> str:
        return one.hex

    def time(self) -> str:
        return f"'{as_text(self.now())}'"

    def as_callback(self, row: Sequence[Any]) -> WaitingCallback:
        one = WaitingCallback._make(row)
        return one._replace(id=_uuid(one.id), taskset_id=_uuid(one.taskset_id))

    # Wake-ups

    hears = True

    def can_notify(self) -> bool:
        return hasattr(os, "sched_yield")

    def notify(self, queues: Iterable[str]) -> None:
        # The commit itself has woken who listens to the file; but often on this core, where it has
        # to wait until this thread does.
        os.sched_yield()

    def listen(self) -> Listener:
        return FileListener(self.connection)


def _is_plain(outcome: Outcome) -> bool:
    """It is a success, as most are."""
    return outcome.status == SubtaskStatus.SUCCESSFUL and outcome.started is not None


def _written(outcome: Outcome, now: datetime.datetime) -> list[Any]:
    """The outcome as WRITE takes it."""
    has_begun, is_final = outcome.started is not None, outcome.is_final
    run_after = None
    if outcome.has_time:
        run_after = outcome.run_after or now + datetime.timedelta(seconds=outcome.delay)
    return [
        str(outcome.status),
        outcome.reason,
        outcome.return_value if is_final else None,
        f"{outcome.error}\n" if outcome.error else "",
        f"{outcome.error}\n" if outcome.error else None,
        outcome.error_fingerprint if outcome.error else None,
        int(has_begun),
        as_text(now - datetime.timedelta(seconds=outcome.age())) if has_begun else None,
        as_text(now) if is_final else None,
        is_final,
        is_final,
        is_final,
        None if run_after is None else as_text(run_after),
        None if is_final else outcome.args,
        None if is_final else outcome.kwargs,
        int(outcome.retried),
        int(outcome.crashed),
        int(has_begun),
        int(outcome.deferred),
        outcome.claimed.id.hex,
    ]


def _adapted(row: NewSubtask) -> tuple[Any, ...]:
    run_after, expires_at = row.run_after, row.expires_at
    return (
        *row[:-4],
        None if run_after is None else as_text(run_after),
        None if expires_at is None else as_text(expires_at),
        row.status,
        as_text(row.enqueued_at),
    )


def _counted(tally: Tally, now: datetime.datetime) -> tuple[Any, ...]:
    """The tally as COUNT takes it."""
    key, successful, failed, revoked, age = tally
    began = as_text(now - datetime.timedelta(seconds=age)) if age else None
    return (key.hex, successful + failed + revoked, successful, failed, revoked, began)


def _state(row: Sequence[Any]) -> SetState:
    state = SetState._make(row)
    return state._replace(id=_uuid(state.id), has_callbacks=bool(state.has_callbacks))


def _uuid(text: object) -> uuid.UUID:
    return uuid.UUID(hex=str(text))
