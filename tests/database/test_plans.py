"""What a worker asks all the time costs the same beside 300,000 rows that are none of its concern.

Looked at are the plans of the statements that are really executed, with their real parameters, on
a connection as a worker has it: right after a bulk load, and when the database knows its tables.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from django.core.management.color import no_style
from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction
from pytest_django import DjangoDbBlocker

from django_tasksets.ids import new_id
from django_tasksets.maintenance import rescue
from django_tasksets.models import SubtaskRecord, TaskSetRecord
from django_tasksets.recording import record
from django_tasksets.statuses import SubtaskStatus
from django_tasksets.store import get_store
from django_tasksets.store.contract import Claimed, Outcome, Store
from django_tasksets.sweeping import revoke_expired

pytestmark = [
    pytest.mark.django_db,
    # There are whole indexes instead of partial ones, and EXPLAIN tells other things.
    pytest.mark.skipif(connection.vendor == "mysql", reason="plans are read on two databases"),
]

MANY = 100_000
FEW = 100
TABLE = SubtaskRecord._meta.db_table
WORKER = new_id()
BY_ID = {"postgresql": f"{TABLE}_pkey", "sqlite": f"sqlite_autoindex_{TABLE}_1"}


# The rows

SERIES = {
    "postgresql": "generate_series(1, {count}) AS series(n)",
    "sqlite": (
        "(WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series "
        "WHERE n < {count}) SELECT n FROM series)"
    ),
}
RANDOM_ID = {"postgresql": "gen_random_uuid()", "sqlite": "lower(hex(randomblob(16)))"}


def insert_rows(count: int, first: int, taskset_id: uuid.UUID, **given: str) -> None:
    """Insert members of a set; what is given is SQL."""
    values = {
        "id": RANDOM_ID[connection.vendor],
        "taskset_id": quoted(taskset_id),
        "position": f"n + {first}",
        "claim_order": f"n + {first}",
        "role": "'MEMBER'",
        "generation": "1",
        "weight": "1",
        "priority": "0",
        "queue_name": "'default'",
        "task_name": "'tests.tasks.noop'",
        "args": "'[]'",
        "kwargs": "'{}'",
        "options": "''",
        "links": "''",
        "enqueued_at": "CURRENT_TIMESTAMP",
        **given,
    }
    series = SERIES[connection.vendor].format(count=count)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {TABLE} ({', '.join(values)}) "
            f"SELECT {', '.join(values.values())} FROM {series}"
        )


def quoted(key: uuid.UUID) -> str:
    return f"'{key if connection.vendor == 'postgresql' else key.hex}'"


def fill() -> None:
    left = 2 * MANY + 3 * FEW
    taskset = TaskSetRecord.objects.create(total=MANY + left, successful=MANY, remaining=left)
    past, future = "'2001-01-01 00:00:00+00:00'", "'2101-01-01 00:00:00+00:00'"
    kinds = [
        (
            MANY,
            {
                "status": "'SUCCESSFUL'",
                "finished_at": past,
                "worker_id": quoted(WORKER),
            },
        ),
        (MANY, {"status": "'SCHEDULED'", "run_after": future, "expires_at": future}),
        (MANY, {"status": "'WAITING'"}),
        (FEW, {"status": "'READY'"}),
        (FEW, {"status": "'SCHEDULED'", "run_after": past}),
        (FEW, {"status": "'RUNNING'", "worker_id": quoted(WORKER), "claims": "1"}),
    ]
    first = 0
    for count, given in kinds:
        insert_rows(count, first, taskset.id, **given)
        first += count


def keep_vacuum(*, away: bool) -> None:
    """It would learn something of the tables, at some moment, between two tests."""
    if connection.vendor == "postgresql":
        tables = [TABLE, TaskSetRecord._meta.db_table]
        with connection.cursor() as cursor:
            for table in tables:
                cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = {not away})")


@pytest.fixture(scope="module")
def store(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Store]:
    """The store, as a thread of a worker has it, over the rows."""
    with django_db_blocker.unblock():
        original = connections[DEFAULT_DB_ALIAS]
        store = get_store()
        store.dedicate()
        try:
            keep_vacuum(away=True)
            fill()
            yield store
            keep_vacuum(away=False)
            tables = [TABLE, TaskSetRecord._meta.db_table]
            flush = connection.ops.sql_flush(no_style(), tables, allow_cascade=True)
            connection.ops.execute_sql_flush(flush)
        finally:
            connection.close()
            connections[DEFAULT_DB_ALIAS] = original


@pytest.fixture(scope="module", params=["no statistics", "statistics"])
def statistics(request: pytest.FixtureRequest, store: Store) -> None:
    """What the database knows of its tables: first nothing, then all."""
    if request.param == "statistics":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


# The plans


class Reading(NamedTuple):
    """One place in a plan where subtasks are read."""

    by: str | None
    """The index; None is the whole table."""
    rows: int
    """How many rows were looked at, if the database tells."""


def readings(work: Callable[[], object]) -> list[Reading]:
    """How subtasks are read by the statements that `work` executes."""
    found: list[Reading] = []

    def explain(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        if TABLE in sql and not many:
            found.extend(EXPLAIN[connection.vendor](execute, sql, params, context))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        work()
    return found


def explain_postgresql(
    execute: Callable[..., Any], sql: str, params: Any, context: dict[str, Any]
) -> Iterator[Reading]:
    # To tell how many rows are looked at it executes the statement, which is not to count.
    with transaction.atomic():
        execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params, False, context)
        (plan,) = context["cursor"].fetchone()
        transaction.set_rollback(True)
    yield from scans(plan[0]["Plan"])


def scans(node: dict[str, Any]) -> Iterator[Reading]:
    kind = node["Node Type"]
    if node.get("Relation Name") == TABLE and kind.endswith("Scan"):
        removed = (value for name, value in node.items() if name.startswith("Rows Removed by"))
        rows = (node["Actual Rows"] + sum(removed)) * node["Actual Loops"]
        # A bitmap holds entries of dead rows too; what counts is what it leads to.
        indexes = bitmaps(node) if kind == "Bitmap Heap Scan" else [node.get("Index Name")]
        yield from (Reading(index, rows) for index in indexes)
    for child in node.get("Plans", []):
        yield from scans(child)


def bitmaps(node: dict[str, Any]) -> Iterator[str]:
    for child in node.get("Plans", []):
        if child["Node Type"] == "Bitmap Index Scan":
            yield child["Index Name"]
        yield from bitmaps(child)


def explain_sqlite(
    execute: Callable[..., Any], sql: str, params: Any, context: dict[str, Any]
) -> Iterator[Reading]:
    execute(f"EXPLAIN QUERY PLAN {sql}", params, False, context)
    for *_, step in context["cursor"].fetchall():
        # A SCAN of a partial index reads the rows that are in it, and no others.
        # By its number in the file is as good as by its id.
        step = step.replace("INTEGER PRIMARY KEY", f"INDEX {BY_ID['sqlite']}")
        if match := re.match(rf"(SCAN|SEARCH) {TABLE}\b(?:.* INDEX (\S+))?", step):
            whole = match[1] == "SCAN" and match[2] in (None, BY_ID["sqlite"])
            yield Reading(None if whole else match[2], 0)


EXPLAIN = {"postgresql": explain_postgresql, "sqlite": explain_sqlite}


def check(work: Callable[[], object], *indexes: str) -> None:
    """`work` reads by all these indexes, and else by ids, and not more than is its concern."""
    found = readings(work)
    assert {reading.by for reading in found} - {BY_ID[connection.vendor]} == set(indexes)
    assert max(reading.rows for reading in found) <= 10 * FEW


# What a worker asks


@pytest.fixture(autouse=True)
def _crowd(store: Store, statistics: None) -> None:
    """Every test here is about a crowded table."""


@pytest.mark.parametrize("queues", [(), ("default",), ("default", "mail"), ("mail",)])
def test_a_claim_reads_only_ready_rows(store: Store, queues: tuple[str, ...]) -> None:
    check(lambda: store.claim(WORKER, queues, FEW // 2), "tasksets_sub_ready")


@pytest.mark.skipif(connection.vendor != "postgresql", reason="elsewhere nothing is left behind")
def test_to_go_on_reads_only_what_comes_next(store: Store) -> None:
    (last,) = store.claim_on(WORKER, _at(0), 1)
    check(lambda: store.claim_on(WORKER, last, FEW // 2), "tasksets_sub_ready")
    end = _at(2**62)
    found = readings(lambda: store.claim_on(WORKER, end, FEW // 2))
    assert max(reading.rows for reading in found) == 0


def _at(order: int) -> Claimed:
    (some,) = SubtaskRecord.objects.values_list(*Claimed._fields)[:1]
    return Claimed._make(some)._replace(claim_order=order, queue_name="default", priority=0)


@pytest.mark.parametrize("queues", [(), ("default", "mail")])
def test_looking_ahead_reads_no_more_than_it_is_asked_for(
    store: Store, queues: tuple[str, ...]
) -> None:
    """Not all that is READY, to sort it: it is asked again and again while there is much of it."""
    taskset = TaskSetRecord.objects.create(total=20 * FEW, remaining=20 * FEW)
    insert_rows(20 * FEW, 0, taskset.id, status="'READY'")
    check(lambda: store.look_ahead(queues, FEW // 2), "tasksets_sub_ready")
    taskset.delete()


def test_promotion_reads_only_due_rows(store: Store) -> None:
    check(lambda: store.promote(2 * FEW), "tasksets_sub_scheduled")


def test_a_rescue_reads_only_running_rows(store: Store) -> None:
    check(lambda: rescue(store), "tasksets_sub_running")


def test_looking_for_revoked_ones_reads_only_running_rows(store: Store) -> None:
    check(lambda: store.flagged(WORKER), "tasksets_sub_running")


def test_looking_for_what_has_expired_reads_nothing_else(store: Store) -> None:
    check(lambda: revoke_expired(store), "tasksets_sub_expiring")


@pytest.mark.parametrize("count", [FEW // 10, FEW])
def test_a_record_reads_only_what_its_worker_holds(store: Store, count: int) -> None:
    """On PostgreSQL the plan for a few is kept, from whenever it was made: what a worker holds is
    not read then, be it little or much at that moment."""

    def claim_and_record() -> None:
        began, claimed = time.monotonic(), store.claim(WORKER, (), count)
        outcomes = [
            Outcome(row, SubtaskStatus.SUCCESSFUL, return_value="1", started=began)
            for row in claimed
        ]
        assert len(record(store, WORKER, outcomes).written) == count

    is_fresh = connection.vendor == "postgresql" and count == FEW
    check(claim_and_record, "tasksets_sub_ready", *["tasksets_sub_running"] * is_fresh)
