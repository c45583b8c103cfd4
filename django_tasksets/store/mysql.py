"""The store on MySQL and MariaDB: row locks in their order, then one statement for a batch."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ..models import SubtaskRecord
from ..querysets import SubtaskQuerySet, TaskSetQuerySet
from ..statuses import SubtaskStatus
from .contract import LAST_CLAIM, Claimed, NewSubtask, Outcome, batches, next_claim
from .portable import PortableStore, in_claim_order
from .tables import CLAIMED_COLUMNS, INSERT_COLUMNS, SUBTASK
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


INSERT: Final = quoted(
    f"INSERT INTO {SUBTASK} ({INSERT_COLUMNS}) "
    f"VALUES ({', '.join(['%s'] * len(NewSubtask._fields))})"
)
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
# STRAIGHT_JOIN: the rows of the batch drive, and find theirs by primary key.
SUCCEED: Final = quoted(
    f"""UPDATE JSON_TABLE(%s, '$[*]' COLUMNS (
        id CHAR(36) PATH '$[0]', value LONGTEXT PATH '$[1]', age DOUBLE PATH '$[2]'
    )) outcome STRAIGHT_JOIN {SUBTASK} s ON s.id = outcome.id SET
        s.status = 'SUCCESSFUL', s.return_value = outcome.value, s.attempts = s.attempts + 1,
        s.reason = '', s.finished_at = UTC_TIMESTAMP(6), s.expires_at = NULL,
        s.started_at = coalesce(
            s.started_at, UTC_TIMESTAMP(6) - INTERVAL outcome.age SECOND)"""
)


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

    def key(self, value: uuid.UUID | str | None) -> Any:
        """An id as the driver takes it: MariaDB has a type for it, MySQL has 32 digits."""
        field = SubtaskRecord._meta.pk
        return field.get_db_prep_value(value, self.connection)

    # Enqueue

    def insert(self, rows: Iterable[NewSubtask]) -> None:
        with self.connection.cursor() as cursor:
            for batch in batches(rows, 1000):
                cursor.executemany(INSERT, [self._adapted(row) for row in batch])

    def _adapted(self, row: NewSubtask) -> list[Any]:
        values = row._asdict()
        for name in ("id", "taskset_id"):
            values[name] = self.key(values[name])
        for name in ("run_after", "expires_at", "enqueued_at"):
            moment = values[name]
            values[name] = moment and self.connection.ops.adapt_datetimefield_value(moment)
        return list(values.values())

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
                marks = ", ".join(["%s"] * len(rows))
                keys = [self.key(row.id) for row in rows]
                cursor.execute(CLAIM.format(ids=marks), [self.key(worker_id), *keys])
        return rows

    # Record

    def finish(self, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
        held = self.held(worker_id, outcomes)
        good: list[tuple[Any, ...]] = []
        for outcome in held:
            if outcome.status == SubtaskStatus.SUCCESSFUL:
                key = str(self.key(outcome.claimed.id))
                good.append((key, outcome.return_value, outcome.age()))
            else:
                self.write(outcome)
        if good:
            with self.connection.cursor() as cursor:
                cursor.execute(SUCCEED, [json.dumps(good)])
        return held

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


def _uuid(value: Any) -> uuid.UUID:
    return value if isinstance(value, uuid.UUID) else uuid.UUID(value)


def _moment(value: Any) -> Any:
    return None if value is None else value.replace(tzinfo=datetime.UTC)


def _claimed(row: Sequence[Any]) -> Claimed:
    claimed = Claimed._make(row)
    return claimed._replace(
        id=_uuid(claimed.id),
        claims=next_claim(claimed.claims),
        taskset_id=None if claimed.taskset_id is None else _uuid(claimed.taskset_id),
        enqueued_at=_moment(claimed.enqueued_at),
        expires_at=_moment(claimed.expires_at),
    )
