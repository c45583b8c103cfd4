"""The store on SQLite: one writer at a time, so each write transaction takes the lock at once."""

from __future__ import annotations

import datetime
import json
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

from django.db import OperationalError
from django.utils import timezone

from ..statuses import SubtaskStatus
from .contract import Claimed, Listener, NewSubtask, Outcome, SetState, Tally, batches
from .fileversion import FileListener
from .portable import MAX_ERRORS, PortableStore, in_claim_order
from .tables import CLAIMED_COLUMNS, INSERT_COLUMNS, STATE_COLUMNS, SUBTASK, TASKSET

T = TypeVar("T")

# A statement that changes nothing takes the write lock all the same, and waits for it.
TAKE_WRITE_LOCK: Final = f"UPDATE {TASKSET} SET total = total WHERE 0"

INSERT: Final = (
    f"INSERT INTO {SUBTASK} ({INSERT_COLUMNS}) "
    f"VALUES ({', '.join(['%s'] * len(NewSubtask._fields))})"
)
# Batches go in and out as one JSON text each. Row by row, sqlite3 would let go of the interpreter
# at each row, and wait to get it back from the threads that execute while it holds the write lock.
CANDIDATES: Final = f"""
    SELECT json_group_array(json_array({CLAIMED_COLUMNS})) FROM (
        SELECT {CLAIMED_COLUMNS} FROM {SUBTASK} WHERE status = 'READY' AND queue_name = %s
        ORDER BY priority DESC, claim_order LIMIT %s)"""
CLAIM: Final = f"""
    UPDATE {SUBTASK} SET status = 'RUNNING', worker_id = %s, claims = claims + 1, claimed_at = %s
    WHERE id IN (SELECT value FROM json_each(%s))"""
NEXT_QUEUE: Final = (
    f"SELECT min(queue_name) FROM {SUBTASK} WHERE status = 'READY' AND queue_name > %s"
)
PRIORITY: Final = Claimed._fields.index("priority")
CLAIM_ORDER: Final = Claimed._fields.index("claim_order")
ANY_READY: Final = f"SELECT 1 FROM {SUBTASK} WHERE status = 'READY' AND queue_name = %s LIMIT 1"
WRITE: Final = f"""
    UPDATE {SUBTASK} SET status = %s, reason = %s, return_value = %s, errors = CASE
            WHEN length(errors) < {MAX_ERRORS} THEN errors || %s ELSE coalesce(%s, errors) END,
        error_fingerprint = coalesce(%s, error_fingerprint), attempts = attempts + %s,
        started_at = coalesce(started_at, %s), finished_at = %s,
        worker_id = CASE WHEN %s THEN worker_id END, claimed_at = CASE WHEN %s THEN claimed_at END,
        run_after = coalesce(%s, run_after), args = coalesce(%s, args),
        kwargs = coalesce(%s, kwargs), retries = retries + %s, crashes = crashes + %s,
        deferrals = deferrals + %s
    WHERE id = %s"""
HELD: Final = f"""
    SELECT json_group_array(json_array(id, claims)) FROM {SUBTASK}
    WHERE id IN (SELECT value FROM json_each(%s)) AND status = 'RUNNING' AND worker_id = %s"""
SUCCEED: Final = f"""
    UPDATE {SUBTASK} SET status = 'SUCCESSFUL', reason = '', finished_at = %s,
        return_value = json_extract(outcome.value, '$[1]'), attempts = attempts + 1,
        started_at = coalesce(started_at, json_extract(outcome.value, '$[2]'))
    FROM json_each(%s) outcome WHERE {SUBTASK}.id = json_extract(outcome.value, '$[0]')"""
COUNT: Final = f"""
    UPDATE {TASKSET} SET remaining = remaining - %s, successful = successful + %s,
        failed = failed + %s, revoked = revoked + %s, started_at = coalesce(started_at, %s)
    WHERE id = %s RETURNING {STATE_COLUMNS}"""


class SQLiteStore(PortableStore):
    """Hot operations as prepared statements over many rows, each in one write transaction."""

    # Whoever has the one lock should get much done with it.
    claims_at_once = 2000
    records_at_once = 1000

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
        connection = self.connection
        mode = connection.settings_dict["OPTIONS"].get("transaction_mode")
        if str(mode).upper() in ("IMMEDIATE", "EXCLUSIVE"):
            return super().run(work)

        def locked_work() -> T:
            with connection.cursor() as cursor:
                cursor.execute(TAKE_WRITE_LOCK)
            return work()

        return super().run(locked_work)

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
        rows = self.run(lambda: self._claim(worker_id, names, limit))
        return in_claim_order(list(map(_claimed, rows)))

    def with_ready(self, queues: Sequence[str]) -> list[str]:
        names: list[str] = []
        with self.connection.cursor() as cursor:
            for name in dict.fromkeys(queues):
                cursor.execute(ANY_READY, [name])
                if cursor.fetchone():
                    names.append(name)
        return names

    def ready_queues(self) -> list[str]:
        names: list[str] = []
        with self.connection.cursor() as cursor:
            while True:
                cursor.execute(NEXT_QUEUE, [names[-1] if names else ""])
                (name,) = cursor.fetchone()
                if name is None:
                    return names
                names.append(name)

    def _claim(self, worker_id: uuid.UUID, queues: Sequence[str], limit: int) -> list[list[Any]]:
        rows: list[list[Any]] = []
        with self.connection.cursor() as cursor:
            for name in queues:
                cursor.execute(CANDIDATES, [name, limit])
                rows += json.loads(cursor.fetchone()[0])
            if len(queues) > 1:
                rows.sort(key=lambda row: (-row[PRIORITY], row[CLAIM_ORDER]))
                del rows[limit:]
            ids = json.dumps([row[0] for row in rows])
            cursor.execute(CLAIM, [worker_id.hex, _text(self.now()), ids])
        return rows

    # Record

    def finish(self, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
        if all(outcome.status == SubtaskStatus.SUCCESSFUL for outcome in outcomes):
            held = self._held_successes(worker_id, outcomes)
        else:
            held = self.held(worker_id, outcomes)
        now = self.now()
        clock = time.monotonic()
        good: list[tuple[str, str | None, str]] = []
        others: list[list[Any]] = []
        for outcome in held:
            if outcome.status != SubtaskStatus.SUCCESSFUL or outcome.started is None:
                others.append(_written(outcome, now))
                continue
            # To the millisecond, for then many have begun at the same one.
            age = datetime.timedelta(milliseconds=round((clock - outcome.started) * 1000))
            good.append((outcome.claimed.id.hex, outcome.return_value, _text(now - age)))
        with self.connection.cursor() as cursor:
            if good:
                cursor.execute(SUCCEED, [_text(now), json.dumps(good)])
            cursor.executemany(WRITE, others)
        return held

    def _held_successes(self, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """As held(), for outcomes of which none gives a subtask back."""
        by_key = {outcome.claimed.id.hex: outcome for outcome in outcomes}
        with self.connection.cursor() as cursor:
            cursor.execute(HELD, [json.dumps(list(by_key)), worker_id.hex])
            held = json.loads(cursor.fetchone()[0])
        return [by_key[key] for key, claims in held if by_key[key].claimed.claims == claims]

    def count(self, tallies: Sequence[Tally]) -> list[SetState]:
        states: list[SetState] = []
        now = self.now()
        with self.connection.cursor() as cursor:
            for tally in tallies:
                finished = tally.successful + tally.failed + tally.revoked
                began = _text(now - datetime.timedelta(seconds=tally.age)) if tally.age else None
                cursor.execute(
                    COUNT,
                    [finished, tally.successful, tally.failed, tally.revoked, began,
                     tally.taskset_id.hex],
                )  # fmt: skip
                states += map(_state, cursor.fetchall())
        return states

    # Wake-ups

    def listen(self) -> Listener:
        return FileListener(self.connection)


@lru_cache(maxsize=256)
def _text(moment: datetime.datetime) -> str:
    """A time as Django stores it in SQLite."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


@lru_cache(maxsize=256)
def _moment(text: str | None) -> Any:
    return None if text is None else datetime.datetime.fromisoformat(f"{text}+00:00")


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
        _text(now - datetime.timedelta(seconds=outcome.age())) if has_begun else None,
        _text(now) if is_final else None,
        is_final,
        is_final,
        None if run_after is None else _text(run_after),
        None if is_final else outcome.args,
        None if is_final else outcome.kwargs,
        int(outcome.retried),
        int(outcome.crashed),
        int(outcome.deferred),
        outcome.claimed.id.hex,
    ]


def _adapted(row: NewSubtask) -> tuple[Any, ...]:
    run_after, expires_at = row.run_after, row.expires_at
    return (
        *row[:-4],
        None if run_after is None else _text(run_after),
        None if expires_at is None else _text(expires_at),
        row.status,
        _text(row.enqueued_at),
    )


def _claimed(row: Sequence[Any]) -> Claimed:
    key, claims, task_name, args, kwargs, options, links, taskset_id, *others = row
    *others, enqueued_at, expires_at = others
    taskset = None if taskset_id is None else _uuid(taskset_id)
    head = (uuid.UUID(hex=key), claims + 1, task_name, args, kwargs, options, links, taskset)
    return Claimed._make((*head, *others, _moment(enqueued_at), _moment(expires_at)))


@lru_cache(maxsize=256)
def _uuid(text: str) -> uuid.UUID:
    """The id of a set: the same for many subtasks."""
    return uuid.UUID(hex=text)


def _state(row: Sequence[Any]) -> SetState:
    state = SetState._make(row)
    return state._replace(id=uuid.UUID(hex=str(state.id)), has_callbacks=bool(state.has_callbacks))
