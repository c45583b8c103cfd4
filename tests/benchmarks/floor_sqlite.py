"""The floor on SQLite."""

from __future__ import annotations

import datetime
import json
import sqlite3
import uuid
from collections.abc import Sequence
from typing import Any

from django_tasksets.ids import new_id
from tests.benchmarks import floor
from tests.benchmarks.floor import COLUMNS, SET_COLUMNS


class Floor(floor.Floor):
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
