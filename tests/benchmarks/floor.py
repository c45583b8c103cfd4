"""The floor: a set of calls run by a loop that is written out by hand for one kind of database.

One process, one thread, one connection of the bare driver, no Django, no worker to wake, nothing
that can be configured. The tables and indexes are this package's own, and so is the fence: a row
that is not held under (worker_id, claims) any more is not written. What a good engineer would
write for this one set, and what a general task queue can be compared with.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from django_tasksets.ids import new_id
from tests.benchmarks.lab import postgresql_address

TASKS: dict[str, Callable[..., Any]] = {"add": lambda x, y: x + y, "total": sum}
COLUMNS = (
    "id, taskset_id, role, position, generation, weight, task_name, args, kwargs, options, links, "
    "queue_name, priority, claim_order, status, enqueued_at"
)
SET_COLUMNS = (
    "id, name, status, generation, total, remaining, successful, failed, revoked, has_callbacks, "
    "enqueued_at, sealed_at, revoke_reason, metadata"
)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one run took, in seconds."""

    enqueue: float
    whole: float
    """From the call that enqueues to the callback's start."""


class Floor(ABC):
    """One set of add(i, i), and total() with the list of what they return."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.worker_id = uuid.uuid4()

    def run(self, count: int) -> Timing:
        """Insert, claim, call and record all of it."""
        began = time.perf_counter()
        taskset_id = new_id()
        self.enqueue(taskset_id, count)
        enqueued = time.perf_counter()
        while rows := self.claim():
            if rows[0][5] == "ON_SUCCESS":
                results = [json.loads(text) for text in self.results(taskset_id)]
                whole = time.perf_counter() - began
                assert TASKS[rows[0][2]](results) == count * (count - 1)
                return Timing(enqueued - began, whole)
            outcomes = []
            for key, claims, name, args, kwargs, _ in rows:
                value = TASKS[name](*json.loads(args), **json.loads(kwargs))
                outcomes.append((key, claims, json.dumps(value)))
            self.record(taskset_id, outcomes)
        raise AssertionError("the callback was not released")

    @abstractmethod
    def enqueue(self, taskset_id: uuid.UUID, count: int) -> None:
        """Insert the set, its callback and its members, in one transaction."""

    @abstractmethod
    def claim(self) -> Sequence[tuple[Any, ...]]:
        """Claim a batch: id, claims, name, args, kwargs, role."""

    @abstractmethod
    def record(self, taskset_id: uuid.UUID, outcomes: Sequence[tuple[Any, int, str]]) -> None:
        """Write (id, claims, return value) down, count, and finish; in one transaction."""

    @abstractmethod
    def results(self, taskset_id: uuid.UUID) -> list[str]:
        """What the members returned, in their order."""

    @abstractmethod
    def empty(self) -> None:
        """Make ready for another run."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back."""


class PostgreSQLFloor(Floor):
    """psycopg: COPY in, prepared statements with arrays, binary results."""

    CLAIM = """
        WITH candidate AS MATERIALIZED (
            SELECT id FROM tasksets_subtaskrecord
            WHERE status = 'READY' AND queue_name = 'default'
            ORDER BY priority DESC, claim_order LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE tasksets_subtaskrecord s
        SET status = 'RUNNING', worker_id = %s, claims = claims + 1, claimed_at = now()
        FROM candidate WHERE s.id = candidate.id
        RETURNING s.id, claims, task_name, args, kwargs, role"""
    RECORD = """
        WITH mine AS MATERIALIZED (
            SELECT id FROM tasksets_subtaskrecord
            WHERE id = ANY (%b::uuid[]) AND status = 'RUNNING' AND worker_id = %b
            ORDER BY id FOR NO KEY UPDATE
        )
        UPDATE tasksets_subtaskrecord s SET status = 'SUCCESSFUL', return_value = outcome.value,
            attempts = attempts + 1, started_at = coalesce(started_at, now()), finished_at = now()
        FROM mine JOIN unnest(%b::uuid[], %b::int[], %t::text[]) outcome(id, claims, value)
            ON outcome.id = mine.id
        WHERE s.id = mine.id AND s.claims = outcome.claims"""
    COUNT = """
        UPDATE tasksets_tasksetrecord
        SET remaining = remaining - %s, successful = successful + %s WHERE id = %s
        RETURNING remaining"""
    FINISH = """
        UPDATE tasksets_tasksetrecord SET status = 'SUCCESSFUL', finished_at = now()
        WHERE id = %s AND status = 'RUNNING' AND remaining = 0"""
    RELEASE = """
        UPDATE tasksets_subtaskrecord SET status = 'READY'
        WHERE taskset_id = %s AND position < 0 AND status = 'WAITING'"""
    RESULTS = """
        SELECT return_value FROM tasksets_subtaskrecord
        WHERE taskset_id = %s AND position >= 0 ORDER BY position"""

    def __init__(self, database: str, batch: int) -> None:
        super().__init__(batch)
        self.connection = psycopg.connect(postgresql_address(database), autocommit=True)
        # Right after a bulk load there are no statistics, and the planner would read all of it.
        self.connection.execute("SET enable_seqscan = off; SET jit = off")
        self.cursor = self.connection.cursor(binary=True)

    def enqueue(self, taskset_id: uuid.UUID, count: int) -> None:
        now = datetime.datetime.now(datetime.UTC)
        order = int(now.timestamp() * 1_000_000)
        with self.connection.transaction():
            self.cursor.execute(
                f"INSERT INTO tasksets_tasksetrecord ({SET_COLUMNS}) VALUES "
                "(%s, '', 'RUNNING', 1, %s, %s, 0, 0, 0, true, %s, %s, '', 'null')".encode(),
                (taskset_id, count, count, now, now),
            )
            with self.cursor.copy(
                f"COPY tasksets_subtaskrecord ({COLUMNS}) FROM STDIN".encode()
            ) as copy:
                copy.write(
                    f"{new_id()}\t{taskset_id}\tON_SUCCESS\t-3\t1\t1\ttotal\t[]\t{{}}\t\t\t"
                    f"default\t0\t{order}\tWAITING\t{now}\n"
                )
                for start in range(0, count, 1000):
                    copy.write(
                        "".join(
                            f"{new_id().hex}\t{taskset_id}\tMEMBER\t{i}\t1\t1\tadd\t"
                            f"{json.dumps([i, i])}\t{{}}\t\t\t"
                            f"default\t0\t{order + i * 1_000_000}\tREADY\t{now}\n"
                            for i in range(start, min(start + 1000, count))
                        )
                    )

    def claim(self) -> Sequence[tuple[Any, ...]]:
        self.cursor.execute(self.CLAIM, (self.batch, self.worker_id), prepare=True)
        return self.cursor.fetchall()

    def record(self, taskset_id: uuid.UUID, outcomes: Sequence[tuple[Any, int, str]]) -> None:
        ids, claims, values = map(list, zip(*outcomes, strict=True))
        execute = self.cursor.execute
        with self.connection.transaction():
            # Planned each time: a generic plan takes every array for a short one, and compares
            # each row with each element.
            execute(self.RECORD, (ids, self.worker_id, ids, claims, values), prepare=False)
            written = self.cursor.rowcount
            execute(self.COUNT, (written, written, taskset_id), prepare=True)
            if self.cursor.fetchone() == (0,):
                execute(self.FINISH, (taskset_id,))
                if self.cursor.rowcount:
                    execute(self.RELEASE, (taskset_id,))

    def results(self, taskset_id: uuid.UUID) -> list[str]:
        self.cursor.execute(self.RESULTS, (taskset_id,))
        return [text for (text,) in self.cursor.fetchall()]

    def empty(self) -> None:
        self.connection.execute("TRUNCATE tasksets_tasksetrecord CASCADE")

    def close(self) -> None:
        self.connection.close()


class SQLiteFloor(Floor):
    """sqlite3 in WAL mode: executemany in and out, each transaction taking the lock at once."""

    CLAIM = """
        UPDATE tasksets_subtaskrecord
        SET status = 'RUNNING', worker_id = ?, claims = claims + 1, claimed_at = ?
        WHERE id IN (
            SELECT id FROM tasksets_subtaskrecord
            WHERE status = 'READY' AND queue_name = 'default'
            ORDER BY priority DESC, claim_order LIMIT ?
        ) RETURNING id, claims, task_name, args, kwargs, role"""
    RECORD = """
        UPDATE tasksets_subtaskrecord SET status = 'SUCCESSFUL', return_value = ?,
            attempts = attempts + 1, started_at = coalesce(started_at, ?), finished_at = ?
        WHERE id = ? AND status = 'RUNNING' AND worker_id = ? AND claims = ?"""
    COUNT = """
        UPDATE tasksets_tasksetrecord
        SET remaining = remaining - ?, successful = successful + ? WHERE id = ?
        RETURNING remaining"""
    FINISH = """
        UPDATE tasksets_tasksetrecord SET status = 'SUCCESSFUL', finished_at = ?
        WHERE id = ? AND status = 'RUNNING' AND remaining = 0"""
    RELEASE = """
        UPDATE tasksets_subtaskrecord SET status = 'READY'
        WHERE taskset_id = ? AND position < 0 AND status = 'WAITING'"""
    RESULTS = """
        SELECT return_value FROM tasksets_subtaskrecord
        WHERE taskset_id = ? AND position >= 0 ORDER BY position"""

    def __init__(self, database: str, batch: int) -> None:
        super().__init__(batch)
        self.connection = sqlite3.connect(database, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = wal")
        self.connection.execute("PRAGMA synchronous = normal")
        self.connection.execute("PRAGMA foreign_keys = on")

    def enqueue(self, taskset_id: uuid.UUID, count: int) -> None:
        now = datetime.datetime.now(datetime.UTC)
        order, at, key = int(now.timestamp() * 1_000_000), _text(now), taskset_id.hex
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        execute(
            f"INSERT INTO tasksets_tasksetrecord ({SET_COLUMNS}) VALUES "
            "(?, '', 'RUNNING', 1, ?, ?, 0, 0, 0, 1, ?, ?, '', 'null')",
            (key, count, count, at, at),
        )
        insert = (
            f"INSERT INTO tasksets_subtaskrecord ({COLUMNS}) VALUES "
            "(?, ?, ?, ?, 1, 1, ?, ?, '{}', '', '', 'default', 0, ?, ?, ?)"
        )
        execute(insert, (new_id().hex, key, "ON_SUCCESS", -3, "total", "[]", order, "WAITING", at))
        self.connection.executemany(
            insert,
            (
                (new_id().hex, key, "MEMBER", i, "add", json.dumps([i, i]),
                 order + i * 1_000_000, "READY", at)
                for i in range(count)
            ),
        )  # fmt: skip
        execute("COMMIT")

    def claim(self) -> Sequence[tuple[Any, ...]]:
        # One statement outside a transaction is a transaction, and begins by writing.
        parameters = (self.worker_id.hex, _text(datetime.datetime.now(datetime.UTC)), self.batch)
        return self.connection.execute(self.CLAIM, parameters).fetchall()

    def record(self, taskset_id: uuid.UUID, outcomes: Sequence[tuple[Any, int, str]]) -> None:
        now, me, key = (
            _text(datetime.datetime.now(datetime.UTC)),
            self.worker_id.hex,
            taskset_id.hex,
        )
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        written = self.connection.executemany(
            self.RECORD, [(value, now, now, i, me, claims) for i, claims, value in outcomes]
        ).rowcount
        (remaining,) = execute(self.COUNT, (written, written, key)).fetchone()
        if remaining == 0 and execute(self.FINISH, (now, key)).rowcount:
            execute(self.RELEASE, (key,))
        execute("COMMIT")

    def results(self, taskset_id: uuid.UUID) -> list[str]:
        return [text for (text,) in self.connection.execute(self.RESULTS, (taskset_id.hex,))]

    def empty(self) -> None:
        self.connection.execute("DELETE FROM tasksets_subtaskrecord")
        self.connection.execute("DELETE FROM tasksets_tasksetrecord")

    def close(self) -> None:
        self.connection.close()


def _text(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


FLOORS: dict[str, type[PostgreSQLFloor | SQLiteFloor]] = {
    "postgresql": PostgreSQLFloor,
    "sqlite": SQLiteFloor,
}
