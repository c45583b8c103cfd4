"""The floor on PostgreSQL."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Sequence
from typing import Any

import psycopg

from django_tasksets.ids import new_id
from tests.benchmarks import floor
from tests.benchmarks.floor import COLUMNS, SET_COLUMNS
from tests.benchmarks.lab import postgresql_address


class Floor(floor.Floor):
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
