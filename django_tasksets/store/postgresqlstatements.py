"""What the store on PostgreSQL says to its server."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any, Final

from .contract import LAST_CLAIM, NewSubtask
from .portable import MAX_ERRORS
from .tables import (
    CLAIMED_COLUMNS_OF_S,
    INSERT_COLUMNS,
    STATE_COLUMNS_OF_T,
    SUBTASK,
    TASKSET,
)

# As many rows are inserted by one statement, or found by one whose plan is kept.
FEW: Final = 50

# Enqueue

COPY: Final = f"COPY {SUBTASK} ({INSERT_COLUMNS}) FROM STDIN"

# The columns that may hold anything.
TEXTS: Final = itemgetter(
    *map(
        NewSubtask._fields.index,
        ("task_name", "args", "kwargs", "options", "links", "queue_name"),
    )
)


@cache
def insert_few(count: int, its_set: str = "") -> str:
    """Inserts so many subtasks by one statement, and their set before them."""
    row = f"({', '.join(['%s'] * len(NewSubtask._fields))})"
    statement = f"INSERT INTO {SUBTASK} ({INSERT_COLUMNS}) VALUES {', '.join([row] * count)}"
    return f"WITH its_set AS ({its_set}) {statement}" if its_set else statement


@lru_cache(maxsize=2 * FEW)
def numbered(statement: str) -> str:
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


# Claim

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

# The first CTE is MATERIALIZED because a plan that runs its LIMIT more than once would claim more
# than the limit.
CLAIM: Final = f"""
    WITH candidate AS MATERIALIZED ({{candidates}}), claimed AS (
        UPDATE {SUBTASK} s SET status = 'RUNNING', worker_id = %(worker_id)s,
            claims = least(s.claims, {LAST_CLAIM} - 1) + 1, claimed_at = statement_timestamp()
        FROM candidate WHERE s.id = candidate.id
        RETURNING {READABLE_COLUMNS_OF_S}
    ) SELECT * FROM claimed ORDER BY priority DESC, claim_order"""
# One ordered probe for each queue: `queue_name = ANY (...)` would sort every READY row.
BEST: Final = f"""
    SELECT probe.id FROM ({{queues}}) queue(name) CROSS JOIN LATERAL (
        SELECT id, priority, claim_order FROM {SUBTASK}
        WHERE status = 'READY' AND queue_name = queue.name
        ORDER BY priority DESC, claim_order LIMIT %(limit)s
        FOR NO KEY UPDATE SKIP LOCKED
    ) probe ORDER BY probe.priority DESC, probe.claim_order LIMIT %(limit)s"""
CLAIM_FROM_ALL: Final = CLAIM.format(candidates=BEST.format(queues=ALL_QUEUES))
CLAIM_FROM_SOME: Final = CLAIM.format(
    candidates=BEST.format(queues="SELECT DISTINCT unnest(%(queues)s::text[])")
)
# Until they are cleaned up, both of these step over the entries of all rows that have been claimed,
# which in a large set takes as long as to claim. This one begins where they end.
CLAIM_ON: Final = CLAIM.format(
    candidates=f"""
        SELECT id FROM {SUBTASK}
        WHERE status = 'READY' AND queue_name = %(queue_name)s AND priority = %(priority)s
            AND claim_order >= %(claim_order)s
        ORDER BY claim_order LIMIT %(limit)s
        FOR NO KEY UPDATE SKIP LOCKED"""
)

# Record

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
