"""The floor on MySQL and MariaDB."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Sequence
from typing import Any

import MySQLdb

from django_tasksets.ids import new_id
from tests.benchmarks import floor
from tests.benchmarks.floor import COLUMNS, SET_COLUMNS
from tests.benchmarks.lab import mysql_address


class Floor(floor.Floor):
    """mysqlclient: multi-row INSERT, rows locked in their order, then one UPDATE of the batch.

    Ids are MariaDB's UUIDs, which are sent as text.
    """

    CANDIDATES = """
        SELECT id, claims + 1, task_name, args, kwargs, role FROM tasksets_subtaskrecord
        WHERE status = 'READY' AND queue_name = 'default'
        ORDER BY priority DESC, claim_order LIMIT %s FOR UPDATE SKIP LOCKED"""
    CLAIM = """
        UPDATE tasksets_subtaskrecord
        SET status = 'RUNNING', worker_id = %s, claims = claims + 1, claimed_at = UTC_TIMESTAMP(6)
        WHERE id IN %s"""
    HELD = """
        SELECT id, claims FROM tasksets_subtaskrecord
        WHERE id IN %s AND status = 'RUNNING' AND worker_id = %s ORDER BY id FOR UPDATE"""
    RECORD = """
        UPDATE JSON_TABLE(%s, '$[*]' COLUMNS (
            id CHAR(36) PATH '$[0]', value LONGTEXT PATH '$[1]'
        )) outcome STRAIGHT_JOIN tasksets_subtaskrecord s ON s.id = outcome.id
        SET s.status = 'SUCCESSFUL', s.return_value = outcome.value, s.attempts = s.attempts + 1,
            s.started_at = coalesce(s.started_at, UTC_TIMESTAMP(6)),
            s.finished_at = UTC_TIMESTAMP(6)"""
    COUNT = """
        UPDATE tasksets_tasksetrecord
        SET remaining = remaining - %s, successful = successful + %s WHERE id = %s"""
    FINISH = """
        UPDATE tasksets_tasksetrecord SET status = 'SUCCESSFUL', finished_at = UTC_TIMESTAMP(6)
        WHERE id = %s AND status = 'RUNNING' AND remaining = 0"""
    RELEASE = """
        UPDATE tasksets_subtaskrecord SET status = 'READY'
        WHERE taskset_id = %s AND position < 0 AND status = 'WAITING'"""
    RESULTS = """
        SELECT return_value FROM tasksets_subtaskrecord
        WHERE taskset_id = %s AND position >= 0 ORDER BY position"""

    def __init__(self, database: str, batch: int) -> None:
        super().__init__(batch)
        self.connection = MySQLdb.connect(**mysql_address(), database=database, autocommit=True)
        self.cursor = self.connection.cursor()
        self.cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def enqueue(self, taskset_id: uuid.UUID, count: int) -> None:
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        order, key = int(now.timestamp() * 1_000_000), str(taskset_id)
        self.connection.begin()
        self.cursor.execute(
            f"INSERT INTO tasksets_tasksetrecord ({SET_COLUMNS}) VALUES "
            "(%s, '', 'RUNNING', 1, %s, %s, 0, 0, 0, true, %s, %s, '', 'null')",
            (key, count, count, now, now),
        )
        # Nothing but marks: the driver makes one statement of many rows of those only.
        insert = (
            f"INSERT INTO tasksets_subtaskrecord ({COLUMNS}) VALUES "
            f"({', '.join(['%s'] * (COLUMNS.count(',') + 1))})"
        )
        callback = ("total", "[]", "{}", "", "", "default", 0, order, "WAITING", now)
        self.cursor.execute(insert, (str(new_id()), key, "ON_SUCCESS", -3, 1, 1, *callback))
        for start in range(0, count, 1000):
            self.cursor.executemany(
                insert,
                [
                    (str(new_id()), key, "MEMBER", i, 1, 1, "add", json.dumps([i, i]), "{}",
                     "", "", "default", 0, order + i * 1_000_000, "READY", now)
                    for i in range(start, min(start + 1000, count))
                ],
            )  # fmt: skip
        self.connection.commit()

    def claim(self) -> Sequence[tuple[Any, ...]]:
        self.connection.begin()
        self.cursor.execute(self.CANDIDATES, (self.batch,))
        rows: Sequence[tuple[Any, ...]] = self.cursor.fetchall()
        if rows:
            self.cursor.execute(self.CLAIM, (str(self.worker_id), [row[0] for row in rows]))
        self.connection.commit()
        return rows

    def record(self, taskset_id: uuid.UUID, outcomes: Sequence[tuple[Any, int, str]]) -> None:
        key = str(taskset_id)
        by_id = {key: (claims, value) for key, claims, value in outcomes}
        self.connection.begin()
        self.cursor.execute(self.HELD, (list(by_id), str(self.worker_id)))
        mine = [(k, by_id[k][1]) for k, claims in self.cursor.fetchall() if by_id[k][0] == claims]
        self.cursor.execute(self.RECORD, (json.dumps(mine),))
        self.cursor.execute(self.COUNT, (len(mine), len(mine), key))
        self.cursor.execute("SELECT remaining FROM tasksets_tasksetrecord WHERE id = %s", (key,))
        if self.cursor.fetchone() == (0,) and self.cursor.execute(self.FINISH, (key,)):
            self.cursor.execute(self.RELEASE, (key,))
        self.connection.commit()

    def results(self, taskset_id: uuid.UUID) -> list[str]:
        self.cursor.execute(self.RESULTS, (str(taskset_id),))
        return [text for (text,) in self.cursor.fetchall()]

    def empty(self) -> None:
        self.cursor.execute("DELETE FROM tasksets_subtaskrecord")
        self.cursor.execute("DELETE FROM tasksets_tasksetrecord")

    def close(self) -> None:
        self.connection.close()
