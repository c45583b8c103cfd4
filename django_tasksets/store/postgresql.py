"""The store on PostgreSQL with psycopg 3: COPY in, one statement for a batch in and out."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Final, Self, TypeAlias

import psycopg
from django.db.backends.utils import CursorWrapper
from psycopg.pq import Format

from ..models import TaskSetRecord
from ..statuses import SubtaskStatus
from .contract import (
    LAST_CLAIM,
    Claimed,
    Listener,
    NewSubtask,
    Outcome,
    SetState,
    Tally,
    WaitingCallback,
    batches,
)
from .endings import EndingStore
from .notifications import CHANNEL, NotificationListener
from .portable import MAX_ERRORS, written
from .tables import (
    CLAIMED_COLUMNS_OF_S,
    INSERT_COLUMNS,
    STATE_COLUMNS_OF_T,
    SUBTASK,
    TASKSET,
)
from .transactions import lease_in_seconds

DEADLOCK: Final = "40P01"
SERIALIZATION: Final = "40001"
LOCK_TIMEOUT: Final = "55P03"
# How often a statement that need not be is executed before it is prepared.
NEVER_UNASKED: Final = 2**31
# The class of errors about what is too large; of no class of Django's.
LIMIT_EXCEEDED: Final = "54"

# As many rows are inserted by one statement, or found by one whose plan is kept.
FEW: Final = 50
COPY: Final = f"COPY {SUBTASK} ({INSERT_COLUMNS}) FROM STDIN"

AnyCursor: TypeAlias = type[psycopg.Cursor[Any]] | type[psycopg.RawCursor[Any]]

# The columns that may hold anything.
TEXTS: Final = itemgetter(
    *map(
        NewSubtask._fields.index,
        ("task_name", "args", "kwargs", "options", "links", "queue_name"),
    )
)
# PostgreSQL knows times that Python does not: `infinity`, and what is before the year 1 or after
# 9999. One such row would keep all that it is claimed with from being read.
PYTHONS_TIMES: Final = "BETWEEN '0001-01-02' AND '9999-12-30'"


def _readable(column: str) -> str:
    is_time = column in ('s."enqueued_at"', 's."expires_at"')
    if not is_time:
        return column
    name = column.removeprefix("s.")
    otherwise = "statement_timestamp()" if name == '"enqueued_at"' else "NULL"
    return f"CASE WHEN {column} {PYTHONS_TIMES} THEN {column} ELSE {otherwise} END AS {name}"


READABLE_COLUMNS_OF_S: Final = ", ".join(map(_readable, CLAIMED_COLUMNS_OF_S.split(", ")))

# The queues that have READY rows, by hops over the index instead of reading all of it.
ALL_QUEUES: Final = f"""
    WITH RECURSIVE hop(name) AS (
        SELECT min(queue_name) FROM {SUBTASK} WHERE status = 'READY'
        UNION ALL
        SELECT (SELECT min(queue_name) FROM {SUBTASK}
                WHERE status = 'READY' AND queue_name > hop.name)
        FROM hop WHERE hop.name IS NOT NULL
    ) SELECT name FROM hop WHERE name IS NOT NULL"""

# One ordered probe for each queue: `queue_name = ANY (...)` would sort every READY row. The CTE is
# MATERIALIZED because a plan that runs its LIMIT more than once would claim more than the limit.
CLAIM: Final = f"""
    WITH candidate AS MATERIALIZED (
        SELECT probe.id FROM ({{queues}}) queue(name) CROSS JOIN LATERAL (
            SELECT id, priority, claim_order FROM {SUBTASK}
            WHERE status = 'READY' AND queue_name = queue.name
            ORDER BY priority DESC, claim_order LIMIT %(limit)s
            FOR NO KEY UPDATE SKIP LOCKED
        ) probe ORDER BY probe.priority DESC, probe.claim_order LIMIT %(limit)s
    ), claimed AS (
        UPDATE {SUBTASK} s SET status = 'RUNNING', worker_id = %(worker_id)s,
            claims = least(s.claims, {LAST_CLAIM} - 1) + 1, claimed_at = statement_timestamp()
        FROM candidate WHERE s.id = candidate.id
        RETURNING {READABLE_COLUMNS_OF_S}
    ) SELECT * FROM claimed ORDER BY priority DESC, claim_order"""
CLAIM_FROM_ALL: Final = CLAIM.format(queues=ALL_QUEUES)
CLAIM_FROM_SOME: Final = CLAIM.format(queues="SELECT DISTINCT unnest(%(queues)s::text[])")

# Sorted arrays do not make an UPDATE lock in their order; an ordered locking SELECT does.
SUCCEED: Final = f"""
    WITH mine AS MATERIALIZED (
        SELECT id FROM {SUBTASK}
        WHERE id = ANY (%(ids)b::uuid[]) AND status = 'RUNNING' AND worker_id = %(worker_id)s
        ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE {SUBTASK} s SET status = 'SUCCESSFUL', return_value = outcome.value,
        attempts = s.attempts + 1, finished_at = statement_timestamp(), reason = '',
        expires_at = NULL,
        started_at = coalesce(
            s.started_at, statement_timestamp() - outcome.age * interval '1 second')
    FROM mine JOIN unnest(
        %(ids)b::uuid[], %(claims)b::int[], %(values)s::text[], %(ages)b::float8[]
    ) outcome(id, claims, value, age) ON outcome.id = mine.id
    WHERE s.id = mine.id AND s.claims = outcome.claims
    RETURNING s.id"""

# The same, written such that no index but the one over the ids will do: a plan that is kept from
# when little was RUNNING would read all that is. Not for many: the planner knows how many rows have
# a worker, and cannot know it of this; it would compare each row with each element.
SUCCEED_FEW: Final = SUCCEED.replace(
    "status = 'RUNNING' AND worker_id = %(worker_id)s",
    "(status = 'RUNNING') IS TRUE AND worker_id IS NOT DISTINCT FROM %(worker_id)s",
)

# Every other ending, of rows that are locked already.
WRITE: Final = f"""
    UPDATE {SUBTASK} s SET status = outcome.status, reason = outcome.reason,
        errors = CASE WHEN length(s.errors) < {MAX_ERRORS} OR outcome.error = ''
            THEN s.errors || outcome.error ELSE outcome.error END,
        error_fingerprint = CASE WHEN outcome.error = '' THEN s.error_fingerprint
            ELSE outcome.fingerprint END,
        attempts = s.attempts + outcome.begun,
        started_at = CASE WHEN outcome.begun = 0 THEN s.started_at ELSE coalesce(
            s.started_at, statement_timestamp() - outcome.age * interval '1 second') END,
        finished_at = CASE WHEN outcome.is_final THEN statement_timestamp() END,
        expires_at = CASE WHEN NOT outcome.is_final THEN s.expires_at END,
        worker_id = CASE WHEN outcome.is_final THEN s.worker_id END,
        claimed_at = CASE WHEN outcome.is_final THEN s.claimed_at END,
        run_after = CASE WHEN outcome.has_time THEN coalesce(outcome.run_after,
            statement_timestamp() + outcome.delay * interval '1 second') ELSE s.run_after END,
        args = coalesce(outcome.args, s.args), kwargs = coalesce(outcome.kwargs, s.kwargs),
        retries = s.retries + outcome.retried, crashes = s.crashes + outcome.crashed,
        deferrals = CASE WHEN outcome.begun = 0 THEN s.deferrals + outcome.deferred ELSE 0 END
    FROM unnest(
        %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[], %s::float8[],
        %s::bool[], %s::bool[], %s::timestamptz[], %s::float8[], %s::text[], %s::text[],
        %s::int[], %s::int[], %s::int[]
    ) outcome(id, status, reason, error, fingerprint, begun, age, is_final, has_time, run_after,
        delay, args, kwargs, retried, crashed, deferred)
    WHERE s.id = outcome.id"""

COUNTING: Final = f"""
    UPDATE {TASKSET} t SET
        remaining = t.remaining - tally.successful - tally.failed - tally.revoked,
        successful = t.successful + tally.successful,
        failed = t.failed + tally.failed,
        revoked = t.revoked + tally.revoked,
        started_at = CASE WHEN tally.age = 0 THEN t.started_at ELSE coalesce(
            t.started_at, statement_timestamp() - tally.age * interval '1 second') END"""
COUNT: Final = f"""
    WITH locked AS MATERIALIZED (
        SELECT id FROM {TASKSET} WHERE id = ANY (%(ids)b::uuid[]) ORDER BY id FOR NO KEY UPDATE
    ) {COUNTING}
    FROM locked JOIN unnest(
        %(ids)b::uuid[], %(successful)s::int[], %(failed)s::int[], %(revoked)s::int[],
        %(ages)s::float8[]
    ) tally(id, successful, failed, revoked, age) ON tally.id = locked.id
    WHERE t.id = locked.id
    RETURNING {STATE_COLUMNS_OF_T}"""
# One by itself needs no order. This is planned once; what has arrays of one, each time anew.
COUNT_ONE: Final = f"""
    {COUNTING}
    FROM (VALUES (%(successful)s::int, %(failed)s::int, %(revoked)s::int, %(age)s::float8))
        tally(successful, failed, revoked, age)
    WHERE t.id = %(taskset_id)b
    RETURNING {STATE_COLUMNS_OF_T}"""


class PreparedCursor(psycopg.Cursor[Any]):
    """Has the server keep its plans: to make one takes longer than to claim one subtask."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        return super().execute(query, params, **options | {"prepare": True})


class NumberedCursor(psycopg.RawCursor[Any]):
    """Numbers the placeholders of a long statement once. psycopg numbers those of a statement with
    more than fifty anew each time, which takes longer than to pack and send what is in it."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        return super().execute(_numbered(query), params, **options)


class PostgreSQLStore(EndingStore):
    """Hot operations as single statements for whole batches."""

    claims_at_once = 1000
    records_at_once = 1000
    set_in_one_statement = FEW

    def reconnect(self) -> None:
        super().reconnect()
        with self.connection.cursor() as cursor:
            # Our statements find their rows by index, and in its order; right after a bulk load the
            # planner, which has no statistics yet, would rather read the whole table, or sort all
            # that is READY to have the first hundred. A set's row that somebody
            # holds for long must not hold up the results of all others; least of all for somebody
            # who is out of reach, or frozen, in mid-transaction: that ends with the lease.
            cursor.execute(
                "SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off; "
                "SET lock_timeout = '1s'; "
                f"SET idle_in_transaction_session_timeout = '{lease_in_seconds()}s'"
            )
        # None, which is Django's default, would forbid PreparedCursor too. Behind a pooler of
        # transactions, which Django is told of like this, another session may be asked next.
        if not self.connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
            self.connection.connection.prepare_threshold = NEVER_UNASKED

    def _binary_cursor(self, kind: AnyCursor = psycopg.Cursor) -> CursorWrapper:
        """A cursor that hands over whole batches as they are. Django's writes parameters into the
        statement, as texts that the server has to read again, and reads texts back."""
        connection = self.connection
        connection.ensure_connection()
        with connection.wrap_database_errors:
            cursor: Any = kind(connection.connection)
        # Without time zones Django has a loader of its own, for texts.
        cursor.format = Format.TEXT if connection.timezone is None else Format.BINARY
        if connection.queries_logged:
            return connection.make_debug_cursor(cursor)
        return connection.make_cursor(cursor)

    def cursor_for(self, count: int) -> CursorWrapper:
        # A plan that is kept takes every array for a short one.
        return self._binary_cursor(PreparedCursor if count <= FEW else psycopg.Cursor)

    def now(self) -> datetime.datetime:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT statement_timestamp()")
            moment: datetime.datetime = cursor.fetchone()[0]
        return moment

    def is_transient(self, error: BaseException) -> bool:
        return getattr(error.__cause__, "sqlstate", None) in (DEADLOCK, SERIALIZATION)

    def is_lock_timeout(self, error: BaseException) -> bool:
        return getattr(error.__cause__, "sqlstate", None) == LOCK_TIMEOUT

    def is_refusal(self, error: BaseException) -> bool:
        state = getattr(error.__cause__, "sqlstate", None) or ""
        return super().is_refusal(error) or state.startswith(LIMIT_EXCEEDED)

    # Enqueue

    def insert_set(self, record: TaskSetRecord, rows: Sequence[NewSubtask]) -> None:
        if not 0 < len(rows) <= FEW:
            super().insert_set(record, rows)
            return
        statement = insert_few(len(rows), self.set_statement)
        with self._binary_cursor(NumberedCursor) as cursor:
            cursor.execute(statement, [*self.set_values(record), *chain.from_iterable(rows)])

    def insert(self, rows: Iterable[NewSubtask]) -> None:
        rest = iter(rows)
        few = list(islice(rest, FEW + 1))
        if not few:
            return
        # COPY, which is faster for many, takes a round trip more. Neither puts the arguments into
        # the text of a statement, which servers log.
        if len(few) <= FEW:
            with self._binary_cursor(NumberedCursor) as cursor:
                cursor.execute(insert_few(len(few)), list(chain.from_iterable(few)))
            return
        connection = self.connection
        with (
            connection.cursor() as cursor,
            connection.wrap_database_errors,
            cursor.copy(COPY) as copy,
        ):
            for batch in batches(chain(few, rest), 1000):
                copy.write("".join(map(copy_line, batch)))

    # Claim

    def claim(self, worker_id: uuid.UUID, queues: Sequence[str], limit: int) -> list[Claimed]:
        parameters: dict[str, Any] = {
            "worker_id": worker_id,
            "queues": list(queues),
            "limit": limit,
        }
        statement = CLAIM_FROM_SOME if queues else CLAIM_FROM_ALL

        def work() -> list[Claimed]:
            with self._binary_cursor(PreparedCursor) as cursor:
                cursor.execute(statement, parameters)
                return list(map(Claimed._make, cursor.fetchall()))

        return self.run_statement(work)

    # Record

    def finish(self, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
        if all(outcome.status == SubtaskStatus.SUCCESSFUL for outcome in outcomes):
            return self._succeed(worker_id, outcomes)
        # All of them are locked in the order of ids before any is written.
        held = self.held(worker_id, outcomes)
        good = [outcome for outcome in held if outcome.status == SubtaskStatus.SUCCESSFUL]
        others = [outcome for outcome in held if outcome.status != SubtaskStatus.SUCCESSFUL]
        if good:
            self._succeed(worker_id, good)
        if others:
            self._write(others)
        return held

    def _succeed(self, worker_id: uuid.UUID, outcomes: Sequence[Outcome]) -> list[Outcome]:
        parameters: dict[str, Any] = {
            "worker_id": worker_id,
            "ids": [outcome.claimed.id for outcome in outcomes],
            "claims": [outcome.claimed.claims for outcome in outcomes],
            "values": [outcome.return_value for outcome in outcomes],
            "ages": [outcome.age() for outcome in outcomes],
        }
        with self.cursor_for(len(outcomes)) as cursor:
            cursor.execute(SUCCEED_FEW if len(outcomes) <= FEW else SUCCEED, parameters)
            if cursor.rowcount == len(outcomes):
                return list(outcomes)
            written = {key for (key,) in cursor.fetchall()}
        return [outcome for outcome in outcomes if outcome.claimed.id in written]

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        rows = ((outcome.claimed.id, *written(outcome)) for outcome in outcomes)
        columns = zip(*rows, strict=True)
        with self._binary_cursor() as cursor:
            cursor.execute(WRITE, list(map(list, columns)))

    def count(self, tallies: Sequence[Tally]) -> list[SetState]:
        if not tallies:
            return []
        if len(tallies) == 1:
            statement, parameters = COUNT_ONE, tallies[0]._asdict()
        else:
            statement = COUNT
            parameters = {
                "ids": [tally.taskset_id for tally in tallies],
                "successful": [tally.successful for tally in tallies],
                "failed": [tally.failed for tally in tallies],
                "revoked": [tally.revoked for tally in tallies],
                "ages": [float(tally.age) for tally in tallies],
            }
        with self.cursor_for(len(tallies)) as cursor:
            cursor.execute(statement, parameters)
            return list(map(SetState._make, cursor.fetchall()))

    # The end of a set

    among = "= ANY (%s::uuid[])"
    lock = "FOR NO KEY UPDATE"

    def as_parameter(self, ids: list[uuid.UUID]) -> list[uuid.UUID]:
        return ids

    def as_key(self, one: uuid.UUID) -> uuid.UUID:
        return one

    def time(self) -> str:
        return "statement_timestamp()"

    def as_callback(self, row: Sequence[Any]) -> WaitingCallback:
        return WaitingCallback._make(row)

    # Wake-ups

    hears = True

    def can_notify(self) -> bool:
        return True

    def notify(self, queues: Iterable[str]) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(f"NOTIFY {CHANNEL}")

    def listen(self) -> Listener:
        return NotificationListener(self.connection)


@cache
def insert_few(count: int, its_set: str = "") -> str:
    """Inserts so many subtasks by one statement, and their set before them."""
    row = f"({', '.join(['%s'] * len(NewSubtask._fields))})"
    statement = f"INSERT INTO {SUBTASK} ({INSERT_COLUMNS}) VALUES {', '.join([row] * count)}"
    return f"WITH its_set AS ({its_set}) {statement}" if its_set else statement


@lru_cache(maxsize=2 * FEW)
def _numbered(statement: str) -> str:
    """The statement with the placeholders that PostgreSQL has: $1, $2 and so on."""
    first, *rest = statement.split("%s")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, start=1))


def copy_line(row: NewSubtask) -> str:
    """The row in COPY's text format."""
    texts = "".join(TEXTS(row))
    # Text that is printable has no line end, tab or carriage return.
    if "\\" in texts or not texts.isprintable():
        row = NewSubtask._make(map(_escaped, row))
    return "\t".join([v if type(v) is str else SHOWN.get(type(v), _shown)(v) for v in row]) + "\n"


def _escaped(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\\", "\\\\")
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _shown(value: object) -> str:
    return r"\N" if value is None else str(value)


# The rows of one set have their moments in common.
SHOWN: Final[dict[type, Callable[[Any], str]]] = {
    int: str,
    datetime.datetime: lru_cache(maxsize=256)(str),
}
