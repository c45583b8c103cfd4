"""The store on PostgreSQL with psycopg 3: COPY in, one statement for a batch in and out."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any, Final, Self, TypeAlias

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from psycopg.pq import Format

from ..models import TaskSetRecord
from ..statuses import SubtaskStatus
from .contract import (
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
from .notifications import HINT, NotificationListener
from .portable import written
from .postgresqlstatements import (
    CLAIM_FROM_ALL,
    CLAIM_FROM_SOME,
    CLAIM_ON,
    COPY,
    COUNT,
    COUNT_ONE,
    FEW,
    SUCCEED,
    SUCCEED_FEW,
    WRITE,
    copy_line,
    insert_few,
    numbered,
)
from .roundtrips import execute_both
from .transactions import lease_in_seconds

DEADLOCK: Final = "40P01"
SERIALIZATION: Final = "40001"
LOCK_TIMEOUT: Final = "55P03"
# How often a statement that need not be is executed before it is prepared.
NEVER_UNASKED: Final = 2**31
# The class of errors about what is too large; of no class of Django's.
LIMIT_EXCEEDED: Final = "54"

AnyCursor: TypeAlias = type[psycopg.Cursor[Any]] | type[psycopg.RawCursor[Any]]


class PreparedCursor(psycopg.Cursor[Any]):
    """Has the server keep its plans: to make one takes longer than to claim one subtask."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        return super().execute(query, params, **options | {"prepare": True})


class NumberedCursor(psycopg.RawCursor[Any]):
    """Numbers the placeholders of a long statement once. psycopg numbers those of a statement with
    more than fifty anew each time, which takes longer than to pack and send what is in it."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        return super().execute(numbered(query), params, **options)


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

    def _connected(self) -> BaseDatabaseWrapper:
        """The calling thread's connection, as Django's cursors would find it."""
        connection = self.connection
        connection.close_if_health_check_failed()
        connection.ensure_connection()
        return connection

    def _binary_cursor(self, kind: AnyCursor = psycopg.Cursor) -> CursorWrapper:
        """A cursor that hands over whole batches as they are. Django's writes parameters into the
        statement, as texts that the server has to read again, and reads texts back."""
        connection = self._connected()
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

    def insert_and_notify(
        self, rows: Sequence[NewSubtask], record: TaskSetRecord | None = None
    ) -> bool:
        if self.is_nested or not 0 < len(rows) <= FEW:
            return False
        connection = self._connected()
        # Who watches what Django executes is to see this too; and of a pooler of transactions,
        # which Django is told of like that, each statement may go to another server process.
        is_watched = connection.queries_logged or connection.execute_wrappers
        if is_watched or connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
            return False
        session = connection.connection
        if session.pgconn.pipeline_status or not psycopg.Pipeline.is_supported():
            return False
        values = list(chain.from_iterable(rows))
        if record is not None:
            values = [*self.set_values(record), *values]
        statement = numbered(insert_few(len(rows), "" if record is None else self.set_statement))
        try:
            with connection.wrap_database_errors:
                execute_both(session, statement, values, HINT)
        finally:
            if session.closed or session.pgconn.pipeline_status:
                # So that Django makes a new one when it is next asked for.
                connection.close()
        return True

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
        statement = CLAIM_FROM_SOME if queues else CLAIM_FROM_ALL
        return self._claim(statement, worker_id=worker_id, queues=list(queues), limit=limit)

    def claim_on(self, worker_id: uuid.UUID, last: Claimed, limit: int) -> list[Claimed]:
        return self._claim(
            CLAIM_ON,
            worker_id=worker_id,
            limit=limit,
            queue_name=last.queue_name,
            priority=last.priority,
            claim_order=last.claim_order,
        )

    def _claim(self, statement: str, **parameters: Any) -> list[Claimed]:
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
            cursor.execute(HINT)

    def listen(self) -> Listener:
        return NotificationListener(self.connection)
