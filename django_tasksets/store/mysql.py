"""The store on MySQL and MariaDB: row locks in their order, then one statement for a batch."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from ..ids import read_id
from ..querysets import SubtaskQuerySet, TaskSetQuerySet
from ..statuses import SubtaskStatus
from .contract import LAST_CLAIM, Claimed, NewSubtask, Outcome, in_claim_order, next_claim
from .portable import MAX_ERRORS, PortableStore, written
from .tables import CLAIMED_COLUMNS, INSERT_COLUMNS, RESULT_COLUMNS, SUBTASK
from .transactions import lease_in_seconds

DEADLOCK: Final = 1213
LOCK_TIMEOUT: Final = 1205
CHANGED_SINCE_READ: Final = 1020
# What the values have wrong, though the driver takes it for a fault of the server's: a packet or
# a result that is too large, characters that the table's character set does not have.
REFUSALS: Final = ((1153,), (1301,), (1366,))


def quoted(statement: str) -> str:
    """The statement with names in this database's quotes."""
    return statement.replace('"', "`")


def json_table(types: Mapping[str, str]) -> str:
    """A JSON list of lists as a table with these columns. One text is written and escaped in a
    fraction of the time that the driver takes for as many values."""
    columns = [f"`{name}` {kind} PATH '$[{i}]'" for i, (name, kind) in enumerate(types.items())]
    return f"JSON_TABLE(%s, '$[*]' COLUMNS ({', '.join(columns)}))"


KINDS: Final = {
    "id": "CHAR(36)",
    "taskset_id": "CHAR(36)",
    "run_after": "DATETIME(6)",
    "expires_at": "DATETIME(6)",
    "enqueued_at": "DATETIME(6)",
    **dict.fromkeys(("position", "generation", "weight", "priority", "claim_order"), "BIGINT"),
}
NEW: Final = json_table({name: KINDS.get(name, "LONGTEXT") for name in NewSubtask._fields})
INSERT: Final = quoted(f"INSERT INTO {SUBTASK} ({INSERT_COLUMNS}) SELECT * FROM {NEW} new_row")
RESULT: Final = quoted(f"SELECT {RESULT_COLUMNS} FROM {SUBTASK} WHERE id = %s")
FIRST_QUEUE: Final = quoted(f"SELECT min(queue_name) FROM {SUBTASK} WHERE status = 'READY'")
NEXT_QUEUE: Final = f"{FIRST_QUEUE} AND queue_name > %s"
# No ORDER BY over several queues: each has a probe of its own that reads its index in order.
CANDIDATES: Final = quoted(
    f"""SELECT {CLAIMED_COLUMNS} FROM {SUBTASK} WHERE status = 'READY' AND queue_name = %s
    ORDER BY priority DESC, claim_order LIMIT %s FOR UPDATE SKIP LOCKED"""
)
CLAIM: Final = quoted(
    f"""UPDATE {SUBTASK} SET status = 'RUNNING', worker_id = %s,
        claims = least(claims, {LAST_CLAIM} - 1) + 1, claimed_at = UTC_TIMESTAMP(6)
        WHERE id IN ({{ids}})"""
)
# By the primary key: else all that the worker holds is read, and locked, to find these.
HELD: Final = quoted(
    f"""SELECT id, claims, revoke_flag FROM {SUBTASK} FORCE INDEX (PRIMARY)
    WHERE id IN ({{ids}}) AND status = 'RUNNING' AND worker_id = %s ORDER BY id FOR UPDATE"""
)
# STRAIGHT_JOIN: the rows of the batch drive, and find theirs by primary key.
SUCCEEDED: Final = json_table({"id": "CHAR(36)", "value": "LONGTEXT", "age": "DOUBLE"})
SUCCEED: Final = quoted(
    f"""UPDATE {SUCCEEDED} outcome STRAIGHT_JOIN {SUBTASK} s ON s.id = outcome.id SET
        s.status = 'SUCCESSFUL', s.return_value = outcome.value, s.attempts = s.attempts + 1,
        s.reason = '', s.finished_at = UTC_TIMESTAMP(6), s.expires_at = NULL,
        s.started_at = coalesce(
            s.started_at, UTC_TIMESTAMP(6) - INTERVAL outcome.age SECOND)"""
)
# Every other ending, of rows that are locked already.
WRITTEN: Final = json_table(
    {
        "id": "CHAR(36)", "status": "CHAR(10)", "reason": "LONGTEXT", "error": "LONGTEXT",
        "fingerprint": "LONGTEXT", "begun": "INT", "age": "DOUBLE", "is_final": "INT",
        "has_time": "INT", "run_after": "DATETIME(6)", "delay": "DOUBLE", "args": "LONGTEXT",
        "kwargs": "LONGTEXT", "retried": "INT", "crashed": "INT", "deferred": "INT",
    }
)  # fmt: skip
WRITE: Final = quoted(
    f"""UPDATE {WRITTEN} outcome STRAIGHT_JOIN {SUBTASK} s ON s.id = outcome.id SET
        s.status = outcome.status, s.reason = outcome.reason,
        s.errors = IF(char_length(s.errors) < {MAX_ERRORS} OR outcome.error = '',
            concat(s.errors, outcome.error), outcome.error),
        s.error_fingerprint = IF(outcome.error = '', s.error_fingerprint, outcome.fingerprint),
        s.attempts = s.attempts + outcome.begun,
        s.started_at = IF(outcome.begun, coalesce(
            s.started_at, UTC_TIMESTAMP(6) - INTERVAL outcome.age SECOND), s.started_at),
        s.finished_at = IF(outcome.is_final, UTC_TIMESTAMP(6), NULL),
        s.expires_at = IF(outcome.is_final, NULL, s.expires_at),
        s.worker_id = IF(outcome.is_final, s.worker_id, NULL),
        s.claimed_at = IF(outcome.is_final, s.claimed_at, NULL),
        s.run_after = IF(outcome.has_time, coalesce(outcome.run_after,
            UTC_TIMESTAMP(6) + INTERVAL outcome.delay SECOND), s.run_after),
        s.args = coalesce(outcome.args, s.args), s.kwargs = coalesce(outcome.kwargs, s.kwargs),
        s.retries = s.retries + outcome.retried, s.crashes = s.crashes + outcome.crashed,
        s.deferrals = IF(outcome.begun, 0, s.deferrals + outcome.deferred)"""
)
# Places in a row that is claimed.
ID, CLAIMS, TASKSET_ID, ENQUEUED_AT, EXPIRES_AT = map(
    Claimed._fields.index, ("id", "claims", "taskset_id", "enqueued_at", "expires_at")
)
# How much text goes into one statement, unless one row has more: servers have a limit.
MAX_BYTES: Final = 1_000_000


class MySQLStore(PortableStore):
    """Hot operations over whole batches; at READ COMMITTED, which the worker insists on."""

    def reconnect(self) -> None:
        super().reconnect()
        with self.connection.cursor() as cursor:
            # Times are stored in UTC, and ORM expressions ask for the session's time. A set's row
            # that somebody holds for long must not hold up the results of all others.
            cursor.execute("SET time_zone = '+00:00', innodb_lock_wait_timeout = 1")
            if getattr(self.connection, "mysql_is_mariadb", False):
                # Nor must somebody who is out of reach, or frozen, in mid-transaction: that ends
                # with the lease. MySQL knows no such limit.
                cursor.execute("SET idle_transaction_timeout = %s", [lease_in_seconds()])

    def is_transient(self, error: BaseException) -> bool:
        return error.args[:1] in ((DEADLOCK,), (CHANGED_SINCE_READ,))

    def is_lock_timeout(self, error: BaseException) -> bool:
        return error.args[:1] == (LOCK_TIMEOUT,)

    def is_refusal(self, error: BaseException) -> bool:
        return super().is_refusal(error) or error.args[:1] in REFUSALS

    # Enqueue

    def insert(self, rows: Iterable[NewSubtask]) -> None:
        with self.connection.cursor() as cursor:
            for bundle in _bundles(rows):
                cursor.execute(INSERT, [self._as_json(bundle)])

    def _as_json(self, rows: Sequence[Sequence[Any]]) -> str:
        """The rows as one text, with times as the database writes them."""
        return json.dumps(rows, default=self.connection.ops.adapt_datetimefield_value)

    # Claim

    def ready_queues(self) -> list[str]:
        names: list[str] = []
        with self.connection.cursor() as cursor:
            # Not what is more than an empty text: a name that is none may be less.
            cursor.execute(FIRST_QUEUE)
            while (name := cursor.fetchone()[0]) is not None:
                names.append(name)
                cursor.execute(NEXT_QUEUE, [name])
        return names

    def claim(self, worker_id: uuid.UUID, queues: Sequence[str], limit: int) -> list[Claimed]:
        names = self.with_ready(queues) if queues else self.ready_queues()
        if not names:
            return []
        return self.run(lambda: self._claim(worker_id, names, limit))

    def _claim(self, worker_id: uuid.UUID, queues: Sequence[str], limit: int) -> list[Claimed]:
        rows: list[Claimed] = []
        with self.connection.cursor() as cursor:
            for name in queues:
                cursor.execute(CANDIDATES, [name, limit])
                rows += map(_claimed, cursor.fetchall())
            del in_claim_order(rows)[limit:]
            if rows:
                keys = [row.id.hex for row in rows]
                cursor.execute(CLAIM.format(ids=_marks(keys)), [worker_id.hex, *keys])
        return rows

    # Record

    def running(
        self, worker_id: uuid.UUID, ids: Sequence[uuid.UUID]
    ) -> Iterable[tuple[uuid.UUID, int, int]]:
        keys = [key.hex for key in ids]
        with self.connection.cursor() as cursor:
            cursor.execute(HELD.format(ids=_marks(keys)), [*keys, worker_id.hex])
            return [(_uuid(key), claims, flag) for key, claims, flag in cursor.fetchall()]

    def finish(self, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
        held = self.held(worker_id, outcomes)
        good: list[tuple[Any, ...]] = []
        others: list[tuple[Any, ...]] = []
        for outcome in held:
            key = outcome.claimed.id.hex
            if outcome.status == SubtaskStatus.SUCCESSFUL:
                good.append((key, outcome.return_value, outcome.age()))
            else:
                others.append((key, *written(outcome)))
        with self.connection.cursor() as cursor:
            if good:
                cursor.execute(SUCCEED, [self._as_json(good)])
            if others:
                cursor.execute(WRITE, [self._as_json(others)])
        return held

    def result_row(self, subtask_id: uuid.UUID) -> Sequence[Any] | None:
        with self.connection.cursor() as cursor:
            cursor.execute(RESULT, [subtask_id.hex])
            row: Sequence[Any] | None = cursor.fetchone()
        return row

    def update_set(self, sets: TaskSetQuerySet, taskset_id: uuid.UUID, **changes: Any) -> bool:
        # By its primary key first: on the way through the index over the status it would lock the
        # entry there before the row, and whoever ends the set locks them the other way round.
        list(self.locked(self.tasksets.filter(id=taskset_id), skip=False).values_list("id"))
        return super().update_set(sets, taskset_id, **changes)

    def callbacks_of(self, sets: Sequence[uuid.UUID]) -> SubtaskQuerySet:
        # By their primary keys, which nobody changes while the sets are locked: on the way through
        # the index over the status it would wait for members of other sets, of paused ones say.
        waiting = super().callbacks_of(sets).filter(status=SubtaskStatus.WAITING)
        ids = list(waiting.values_list("id", flat=True))
        return self.subtasks.filter(id__in=ids)


def _marks(values: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(values))


def _bundles(rows: Iterable[NewSubtask]) -> Iterator[list[NewSubtask]]:
    bundle: list[NewSubtask] = []
    size = 0
    for row in rows:
        size += len(row.args) + len(row.kwargs) + len(row.links)
        if bundle and (size > MAX_BYTES or len(bundle) == 1000):
            yield bundle
            bundle, size = [], 0
        bundle.append(row)
    if bundle:
        yield bundle


# MariaDB has a type for ids, MySQL has 32 digits; both take these.


def _uuid(value: Any) -> uuid.UUID:
    return value if isinstance(value, uuid.UUID) else read_id(value)


# What the rows of one set have in common is made once.


@lru_cache(maxsize=256)
def _set_id(value: Any) -> uuid.UUID | None:
    return None if value is None else _uuid(value)


@lru_cache(maxsize=256)
def _moment(value: datetime.datetime | None) -> datetime.datetime | None:
    return None if value is None else value.replace(tzinfo=datetime.UTC)


def _claimed(row: Sequence[Any]) -> Claimed:
    values = list(row)
    values[ID] = _uuid(values[ID])
    values[CLAIMS] = next_claim(values[CLAIMS])
    values[TASKSET_ID] = _set_id(values[TASKSET_ID])
    values[ENQUEUED_AT] = _moment(values[ENQUEUED_AT])
    values[EXPIRES_AT] = _moment(values[EXPIRES_AT])
    return Claimed._make(values)
